"""The rooms of `benchmarks/mutants.py`: parts of the source, with the tests that must fail when a line is changed."""

from __future__ import annotations

VERIFY = tuple(f"verify/test_{name}.py" for name in ("matches", "spellings", "arithmetic", "time", "mathematics"))
MONEY = ("generation/test_money.py", "generation/test_ledger.py", "teachers/test_completion.py")
API = ("generation/test_wire.py", "teachers/test_api.py")
LICENSES = tuple(f"auditing/test_{name}.py" for name in ("audit", "catalogue", "exceptions", "golden", "laws"))
SEEDS = ("corpus/test_odd_seeds.py", "corpus/test_seeds.py", "corpus/test_shipped_seeds.py", "fuzz/test_seed_files.py")
CURATION = tuple(
    f"{name}.py"
    for name in (
        "curation/test_plain",
        "curation/test_order",
        "tables/test_curation",
        "curation/test_curate",
        "curation/test_rows_of_datasets",
    )
)
FAULTS = "curation/test_planted_faults.py"
FRAME_OF_CHECKS = "__init__ columns duplicates groups job judge late lists order plain preview shards sweeps verdicts"
ROW_CHECKS = {
    "row_checks": "broken echo function languages patterns text",
    "repetition": "repetition scripts",
    "formats": "formats",
    "rationales": "answers hints rationales",
}
MEASURED = ("evaluation/test_slices.py", "evaluation/test_lost.py")
RECORDED = ("evaluation/test_directions.py", "evaluation/test_judged.py", "evaluation/test_recorded.py")
LIVE = ("evaluation/test_distance.py", "evaluation/test_once.py", "students/test_student.py")
WORDS = ("students/test_text_students.py", "students/test_seq2seq.py")
LABELS = ("students/test_student.py", "students/test_encoder_student.py")
LEAKS = (
    "privacy/test_spellings.py",
    "privacy/test_spans.py",
    "privacy/test_corpus_privacy.py",
    "auditing/test_passing_secrets.py",
)
REPLIES = ("teachers/test_completion.py", "teachers/test_reasoning.py", "teachers/test_api_replies.py")

ROOMS: dict[str, dict[str, tuple[str, ...]]] = {
    "verification": {"synthgen/verify/*.py": VERIFY},
    "budget": {
        f"synthgen/generation/{name}.py": (*MONEY, *API, "generation/test_batch.py", "generation/test_batch_money.py")
        for name in ("budget", "ledger", "account", "prices")
    },
    "pacing": {
        "synthgen/generation/pacing.py": ("generation/test_pacing.py", "generation/test_scheduling.py"),
        "synthgen/generation/scheduler.py": ("generation/test_scheduling.py", "generation/test_scheduler.py", *API),
    },
    "seeds": {"synthgen/seeds/*.py": SEEDS},
    "records": {
        "synthgen/records.py": (
            "corpus/test_corpus.py",
            "generation/test_reading.py",
            "datasets/test_datasets.py",
            "datasets/test_odd_rows.py",
            "auditing/test_lineage.py",
            "generation/test_single.py",
            *CURATION[2:],
            "teachers/test_api_replies.py",
        )
    },
    "corpus": {
        "synthgen/corpus.py": (
            "corpus/test_folder.py",
            "corpus/test_corpus.py",
            "corpus/test_load_dataset.py",
            "curation/test_order.py",
            "generation/test_stream.py",
            "commands/test_damage.py",
        )
    },
    "checks": {
        f"synthgen/curation/{name}.py": (*CURATION, "curation/test_killed.py") for name in FRAME_OF_CHECKS.split()
    },
    "edits": {
        f"synthgen/curation/{name}.py": ("curation/test_edits.py", FAULTS) for name in ("edits", "openings", "turns")
    },
    "row checks": {
        f"synthgen/curation/{name}.py": (f"curation/test_{tests}.py", FAULTS, *CURATION[2:])
        for tests, names in ROW_CHECKS.items()
        for name in names.split()
    },
    "confidence": {"synthgen/curation/confidence.py": ("curation/test_confidence.py",)},
    "web text": {"synthgen/curation/web_text.py": ("curation/test_web_text.py",)},
    "refusals": {"synthgen/curation/refusals/*.py": ("curation/test_refusals.py", FAULTS)},
    "decontamination": {"synthgen/curation/decontamination/*.py": ("curation/test_decontamination.py",)},
    "selection": {"synthgen/curation/selection/*.py": ("curation/test_selection.py",)},
    "privacy": {"synthgen/curation/privacy/*.py": ("curation/test_privacy.py",)},
    "near duplicates": {
        "synthgen/curation/near/*.py": ("curation/test_near.py",),
        "synthgen/curation/held_out.py": ("curation/test_held_out.py",),
    },
    "licenses": {
        "synthgen/auditing/*.py": (
            *LICENSES,
            "tables/test_audits.py",
            "auditing/test_lineage.py",
            "auditing/test_gate.py",
            "auditing/test_allowed.py",
            "auditing/test_notices.py",
        ),
        "synthgen/recipe/terms.py": LICENSES,
        "synthgen/lineage.py": ("auditing/test_lineage.py",),
    },
    "logits": {
        "synthgen/logits.py": (
            "corpus/test_logits.py",
            "losses/test_stored_targets.py",
            "losses/test_loss_bugs.py",
        )
    },
    "targets": {
        "distill/targets/across.py": ("targets/test_align.py",),
        "distill/targets/ensemble.py": ("targets/test_ensemble.py",),
        "distill/targets/hidden.py": ("targets/test_hidden.py",),
        "distill/targets/hidden_states.py": ("targets/test_states.py", "targets/test_stored_students.py"),
        "distill/targets/layer_outputs.py": ("targets/test_states.py", "targets/test_hidden.py"),
        "distill/targets/live.py": ("targets/test_online.py",),
        "distill/targets/rationale.py": ("targets/test_rationale.py",),
        "distill/targets/stored.py": ("losses/test_loss_bugs.py", "losses/test_train_loss.py"),
    },
    "evaluation": {
        **{f"distill/evaluation/{name}.py": MEASURED for name in ("slices", "diversity", "said", "lost", "grouped")},
        **{f"distill/evaluation/{name}.py": RECORDED for name in ("judged", "likelihood", "recorded")},
        **{f"distill/evaluation/{name}.py": LIVE for name in ("distance", "fidelity")},
        **{f"distill/evaluation/{name}.py": (RECORDED[2], *LIVE) for name in ("answers", "evaluate", "subject")},
        "distill/evaluation/asking.py": ("evaluation/test_cost.py", RECORDED[2], LIVE[1]),
        "distill/evaluation/texts.py": (RECORDED[2],),
        "distill/evaluation/classifiers.py": (MEASURED[1], LABELS[1]),
        "distill/evaluation/similarity.py": ("evaluation/test_directions.py", "students/test_sentence.py"),
        "distill/evaluation/timing.py": ("evaluation/test_cost.py", LABELS[1]),
        "distill/evaluation/untrained.py": ("auditing/test_student_leaks.py",),
        "distill/intervals.py": (*MEASURED, "students/test_student.py"),
        "distill/curves.py": ("evaluation/test_curve.py",),
        "distill/cost.py": ("evaluation/test_cost.py", RECORDED[2]),
        "distill/held_out.py": (RECORDED[2], LABELS[0]),
    },
    "bias": {"synthgen/bias/*.py": ("bias/test_effects.py", "bias/test_words.py", "bias/test_bias.py")},
    "privacy of corpora": {"synthgen/privacy/*.py": LEAKS},
    "students": {
        "distill/fits.py": ("students/test_saved.py",),
        "distill/students/build.py": ("students/test_saved.py", *LABELS),
        "distill/students/classifier*.py": LABELS[:1],
        "distill/students/completions.py": ("students/test_saved.py", *WORDS),
        "distill/students/decoder.py": ("students/test_saved.py", *LABELS[:1]),
        "distill/students/encoder.py": LABELS[1:],
        "distill/students/labels.py": LABELS[::-1],
        "distill/students/layers.py": ("students/test_layers.py", "students/test_architectures.py", *LABELS[:1]),
        "distill/students/online.py": ("targets/test_online.py",),
        "distill/students/sentence.py": (
            "students/test_layers.py",
            "students/test_sentence_layers.py",
            "students/test_sentence.py",
        ),
        "distill/students/seq2seq.py": WORDS[1:],
        "distill/students/skipping.py": ("students/test_layers.py", "students/test_architectures.py", *LABELS[:1]),
    },
    "gate": {
        f"synthgen/teachers/{name}.py": (*REPLIES, *API)
        for name in ("completion", "usage", "finish", "gate", "reasoning", "served")
    },
}
"""Maps each room to its source files, which may be patterns. Each file is mapped to its tests, in the order in which
they run.
"""
