"""DIMENSIONS: what the loss statement of a student compares. A loss statement says what a student lost or gained,
compared with its teacher and its base (arXiv 2604.25110). The base is the student before training.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dimension:
    """One dimension of the loss statement, such as accuracy.

    `about` says in a few words what is compared. `audit` is the name in AUDITS of the audit that measures the
    dimension. If `audit` is "", the evaluation of the student measures it. If a kind of student cannot have a
    dimension, the field `not_stated` of its entry in KINDS says why.
    """

    title: str
    about: str
    audit: str = ""


DIMENSIONS: dict[str, Dimension] = {
    "accuracy": Dimension("Accuracy", "how often an answer is right"),
    "agreement": Dimension("Agreement", "how often the student does what the teacher does"),
    "likelihood": Dimension("Likelihood", "how probable the held-out answers are for the model"),
    "calibration": Dimension("Calibration", "whether the model is as sure as it should be"),
    "refusals": Dimension("Refusals", "how often the model declines to answer"),
    "diversity": Dimension("Diversity", "how varied the texts are"),
    "languages": Dimension("Languages", "whether answers are in the language of the prompt"),
    "length": Dimension("Length", "how long answers are"),
    "privacy": Dimension("Privacy", "what the model reveals of its training data", audit="privacy"),
    "bias": Dimension("Bias", "whether the model treats groups of people differently", audit="models"),
}
