"""The areas of `benchmarks/mutants.py`: parts of the source, with the tests that must fail when a line is changed."""

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
    "privacy/test_spellings_of_personal_data.py",
    "privacy/test_spans.py",
    "privacy/test_corpus_privacy.py",
    "auditing/test_passing_secrets.py",
)
REPLIES = ("teachers/test_completion.py", "teachers/test_reasoning.py", "teachers/test_api_replies.py")
ROWS = ("generation/test_ids.py", "generation/test_asking.py", "generation/test_reading.py")
WAITING = tuple(f"generation/test_{name}.py" for name in ("crew", "scheduler", "ledger", "cluster"))
BATCH = ("generation/test_batch.py", "generation/test_batch_money.py")
REMOVALS = ("takedown/test_removals_of_rows.py", "takedown/test_remove.py")
RECIPES = tuple(
    f"recipe/test_{name}.py"
    for name in (
        "problems",
        "recipe",
        "places",
        "chosen_by",
        "nearest",
        "old_keys",
        "yaml_text",
        "settings",
        "rules",
        "schema",
    )
)
TEXTS_OF_MODELS = tuple(f"lm/test_{name}.py" for name in ("template", "control", "missing_weights", "weights"))
COMPUTED = ("teachers/test_score.py", "lm/test_batched.py", "teachers/test_teacher.py")
REMOTE = (
    *(f"teachers/test_{name}.py" for name in ("server_errors", "sent", "replay")),
    *REPLIES,
    "teachers/test_api.py",
)

STREAM = ("students/test_streaming.py", "students/test_stream_cache.py")
TRAINING = ("students/test_schedule.py", "students/test_train.py", "students/test_loop.py")
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

AREAS: dict[str, dict[str, tuple[str, ...]]] = {
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
    "stores": {
        "synthgen/stores/*.py": ("corpus/test_leases.py", "corpus/test_mirrors.py", "corpus/test_stores.py"),
        "synthgen/durable.py": ("house/test_durable.py", "corpus/test_folder.py", "corpus/test_stores.py"),
        "synthgen/manifest.py": ("corpus/test_corpus.py", "corpus/test_dataset_card.py", "corpus/test_folder.py"),
    },
    "plans": {
        # `executor/ray.py` is in no area, because only tests/ray runs tasks, in an environment that has Ray
        **{
            f"synthgen/executor/{name}.py": ("executor/test_exchange.py", "executor/test_local.py")
            for name in ("__init__", "base", "exchange", "local", "worker")
        },
        "synthgen/executor/messages.py": ("generation/test_cluster.py",),
        "synthgen/generation/outlook.py": ("generation/test_outlook.py",),
        "synthgen/plancommand.py": ("generation/test_outlook.py",),
    },
    "streaming": {
        "distill/streaming/canaries.py": ("auditing/test_student_leaks.py",),
        "distill/streaming/columns.py": ("students/test_stream_columns.py", *STREAM),
        "distill/streaming/conversations.py": ("students/test_conversations.py", "students/test_adopted.py"),
        **{
            f"distill/streaming/{name}.py": STREAM
            for name in ("batches", "distributions", "mapped", "segment", "stream", "tokencache")
        },
    },
    "training": {
        "distill/loop.py": TRAINING,
        "distill/job.py": (*TRAINING, "students/test_text_students.py"),
        "distill/processes.py": ("students/test_loop.py", "students/test_processes.py"),
        "distill/data.py": (
            "losses/test_batches_of_targets.py",
            "students/test_stream_columns.py",
            "students/test_train.py",
            "losses/test_stored_targets.py",
            "losses/test_loss_bugs.py",
        ),
    },
    "making rows": {
        **{
            f"synthgen/generation/{name}.py": (
                *ROWS,
                *(f"generation/test_{test}.py" for test in ("single", "choosing", "scoring")),
            )
            for name in ("jobs", "plan", "rows", "shards")
        },
        **{
            f"synthgen/generation/{name}.py": (*ROWS, "generation/test_rounds.py")
            for name in ("division", "filling", "making", "rounds")
        },
        "synthgen/generation/casting.py": ("generation/test_casting.py", *ROWS, "generation/test_scoring.py"),
        **{f"synthgen/generation/{name}.py": WAITING for name in ("crew", "sharing", "work")},
        **{f"synthgen/generation/{name}.py": BATCH for name in ("batch", "batch_output")},
        "synthgen/generation/forget.py": REMOVALS,
        "synthgen/takedown/*.py": REMOVALS,
    },
    "recipes": {
        **{f"synthgen/recipe/{path}": RECIPES for path in ("[!_t]*.py", "train.py")},  # all but terms.py
        "synthgen/recipe/generate.py": ("teachers/test_labels.py", *RECIPES),
        "synthgen/recipe/exceptions.py": ("auditing/test_exceptions.py", *RECIPES),
    },
    "models": {
        **{
            f"synthgen/lm/{name}.py": TEXTS_OF_MODELS
            for name in ("control", "files", "load", "render", "template", "tokens", "turns", "weights")
        },
        **{
            f"synthgen/lm/{name}.py": COMPUTED
            for name in ("batched", "cache", "model", "prefix", "sampling", "writing")
        },
        "synthgen/lm/forward.py": (*COMPUTED[:2], "students/test_seq2seq.py", COMPUTED[2]),
        "synthgen/lm/tree.py": ("auditing/test_model_scores.py",),
        "synthgen/teachers/embedding.py": ("teachers/test_encoder.py", "students/test_sentence_layers.py"),
        "synthgen/teachers/encoder.py": ("teachers/test_encoder.py", "students/test_encoder_student.py"),
        **{
            f"synthgen/teachers/{name}.py": ("teachers/test_labels.py", "teachers/test_form.py")
            for name in ("labels", "structured")
        },
        **{f"synthgen/teachers/{name}.py": COMPUTED for name in ("score", "transformers")},
    },
    "remote teachers": {
        **{f"synthgen/generation/{name}.py": ("generation/test_ledger.py", *API) for name in ("cache", "claim")},
        **{
            f"synthgen/teachers/{name}.py": REMOTE
            for name in ("base", "chat", "openai", "refusals", "replay", "sent", "server_errors", "server_tokens")
        },
    },
}
"""Maps each area to its source files, which may be patterns. Each file is mapped to its tests, in the order in which
they run.
"""
