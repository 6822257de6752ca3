"""`veche operations` lists what is installed, as text without markup and as JSON."""

from veche.plugins.registry import names


def test_every_operation_is_listed_with_law_and_condition(veche):
    listed = veche("operations")
    assert listed.code == 0
    assert "[bold]" not in listed.out
    heads = [line.split()[0] for line in listed.out.splitlines() if not line.startswith(" ")]
    assert heads == list(names("operations"))
    assert listed.out.count("  law: ") == listed.out.count("  feasible: ") == len(heads)


def test_the_list_as_json(veche):
    operations = veche("operations", "--json").json["operations"]
    assert [operation["name"] for operation in operations] == list(names("operations"))
    for operation in operations:
        assert operation["law"]
        assert operation["feasibility"]
        assert operation["reference_url"].startswith("https://")


def test_the_table_of_proofs_fits_a_terminal(capsys):
    from veche.cli.operations import _show
    from veche.surgery.verification.proof import CASES, Proof

    _show(
        [
            Proof(
                operation=case.operation, family="qwen3_moe", mode="split",
                max_abs_logit_diff=1.25e-06, kl_bf16=1.5e-06, floor_bf16=5.3e-03,
            )
            for case in CASES
        ]
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    for case in CASES:
        assert any(line.startswith(f"{case.operation} ") and "exact" in line for line in lines)
