"""Students for the edge: ONNX (float32 and eight bits) and GGUF, each compared with the student it came from.

    distill.export("runs/demo", "onnx")   # → runs/demo/student/onnx

`make.export` is the command; `onnx`, `gguf` and `int8` write, `running` runs, `parity` compares and measures.
"""
