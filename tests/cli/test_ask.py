"""`veche ask`, where its answer is kept."""


def test_routing_that_lies_there_is_never_overwritten(veche, shelf, tmp_path):
    mine = "моё".encode()
    (tmp_path / "routing.safetensors").write_bytes(mine)
    done = veche("ask", shelf / "moe", "Что?", "--out", tmp_path, "--max-tokens", 8, "--json")
    assert done.error["type"] == "OutputError"
    assert (tmp_path / "routing.safetensors").read_bytes() == mine
    assert not (tmp_path / "transcript.jsonl").exists()


def test_a_finished_run_is_refused_before_the_model_is_looked_for(veche, asked):
    done = veche("ask", "нет-такой", "Что?", "--out", asked[0], "--json")
    assert done.error["type"] == "OutputError"
    assert "overwrites nothing" in done.error["message"]
