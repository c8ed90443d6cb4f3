"""stub"""
def equal(answer: str, reference: str) -> bool:
    return False
