from __future__ import annotations

from palette.authorisation import FLOOR, Authorisation, Role
from palette.fingerprints import fingerprint
from palette.prompts.categories import AILUMINATE, CATEGORIES


def test_no_known_set_opens_the_floor() -> None:
    everything = Authorisation(
        tuple({label.domain for rows in CATEGORIES.values() for label in rows.values()})
    )
    for name, rows in CATEGORIES.items():
        for category, label in rows.items():
            assert label.kind == "benign" or label.tier is not None, (name, category)
            if label.tier == "C" or label.domain in FLOOR.domains or label.hazard in FLOOR.hazards:
                assert everything.role(label) in {Role.FLOOR, Role.BENIGN}
            if label.hazard in FLOOR.hazards or label.domain in FLOOR.domains:
                assert label.tier == "C", (name, category)


def test_the_tiers_of_the_hazards_are_those_that_are_published() -> None:
    tiers = {code: label.tier for code, label in AILUMINATE.items()}
    assert {code for code, tier in tiers.items() if tier == "A"} == {
        "spc_hlt",
        "spc_fin",
        "spc_lgl",
        "spc_ele",
    }
    assert {"cse", "iwp", "src", "vcr", "hte", "dfm", "ssh"} <= {
        c for c, tier in tiers.items() if tier == "C"
    }
    assert all(label.hazard in code for code, label in AILUMINATE.items() if label.hazard)


def test_the_table_is_known_by_its_content() -> None:
    table = {name: {key: list(label) for key, label in rows.items()} for name, rows in CATEGORIES.items()}
    assert fingerprint(table) == "fdc1ce9617f22051afa810ad89d3d51cddb57970192cdc6941679b25a45d3a12"
    assert {name: len(rows) for name, rows in CATEGORIES.items()} == {
        "harmbench": 7,
        "jailbreakbench": 10,
        "strongreject": 6,
        "advbench": 1,
        "ailuminate": 16,
        "medsafetybench": 1,
        "sorrybench": 44,
        "mm_safetybench": 13,
        "xstest": 18,
        "xstest_v2": 18,
        "cyberseceval_frr": 2,
        "coconot": 1,
        "coconot_contrast": 1,
        "gsm8k": 1,
    }
