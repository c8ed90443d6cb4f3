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
REPLIES = ("teachers/test_completion.py", "teachers/test_reasoning.py", "teachers/test_api_replies.py")
ROWS_OF_USERS = tuple(
    f"{name}.py"
    for name in (
        "datasets/test_forms_of_rows",
        "datasets/test_datasets",
        "datasets/test_folders_of_rows",
        "datasets/test_odd_rows",
        "corpus/test_odd_seeds",
    )
)
EXPORTED_STUDENTS = tuple(
    f"exporting/test_{name}.py" for name in ("measured", "other_models", "export_encoder", "export")
)
DESCRIPTIONS = tuple(f"exporting/test_{name}.py" for name in ("facts", "croissant", "spdx"))
AUDIT_PAGE = "reporting/test_audit_page.py"
PAGES = (AUDIT_PAGE, "reporting/test_report.py")
RESULTS = {
    "reporting/test_audit_page.py": "audit audit_text",
    "reporting/test_results.py": "curve evaluation export measures",
    "reporting/test_statement.py": "statement statement_text",
    "reporting/test_report.py": "stored training",
}

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
    "rows of users": {
        "synthgen/datasets/*.py": ROWS_OF_USERS,
        "synthgen/jsonl.py": ROWS_OF_USERS,
        "synthgen/values.py": ROWS_OF_USERS,
        "synthgen/parquet.py": ("corpus/test_corpus.py", "datasets/test_memory.py", "commands/test_damage.py"),
    },
    "exported data": {
        **{
            f"synthgen/exporting/{name}.py": ("datasets/test_export_rows.py",)
            for name in ("files", "job", "rows", "writers", "card")
        },
        **{
            f"synthgen/exporting/{name}.py": DESCRIPTIONS
            for name in ("spdx", "licenses", "facts", "description", "croissant")
        },
    },
    "exported students": {"distill/exporting/*.py": EXPORTED_STUDENTS},
    "pages": {
        **{f"synthgen/results/{name}.py": (tests,) for tests, names in RESULTS.items() for name in names.split()},
        "synthgen/reporting/audit.py": PAGES,
        "synthgen/reporting/look.py": ("reporting/test_look.py", *PAGES),
        "synthgen/reporting/page.py": PAGES,
        "synthgen/reporting/plots.py": ("reporting/test_plots.py", *PAGES),
        "synthgen/reporting/tables.py": PAGES,
        "synthgen/cards.py": ("corpus/test_dataset_card.py", AUDIT_PAGE),
        "synthgen/visible.py": ("house/test_visible.py",),
        "synthgen/display.py": (
            "curation/test_counts.py",
            "house/test_visible.py",
            "curation/test_rows_of_datasets.py",
        ),
        "synthgen/prompts.py": ("corpus/test_prompts.py", "corpus/test_packs.py"),
    },
    "gate": {
        f"synthgen/teachers/{name}.py": (*REPLIES, *API)
        for name in ("completion", "usage", "finish", "gate", "reasoning", "served")
    },
}
"""Maps each room to its source files, which may be patterns. Each file is mapped to its tests, in the order in which
they run.
"""
