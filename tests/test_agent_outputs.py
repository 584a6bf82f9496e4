"""An attempt claims the outputs that it wrote itself, in either layout, and keeps them from whoever comes later."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import AgentError
from tests.support.agent_host import INSTANCE, AgentHost, agent_host
from tests.support.catalogue import fault

SHARED: dict[str, Any] = {"root": "{workdir}/evaluation/evaluation_outputs", "marker": "output.jsonl"}
LAYOUTS = [
    "outputs/data-train/CodeActAgent/gpt_maxiter_200_N_v1",
    f"Trajectory_results/Multi-SWE/{INSTANCE}/gpt/Run1",
]


def root(host: AgentHost) -> Path:
    return host.home / "work" / "evaluation" / "evaluation_outputs"


def write(directory: str, instance: str = INSTANCE, text: str = "") -> str:
    """Return shell lines that write a result into `directory` below the shared root."""
    where = f"evaluation/evaluation_outputs/{directory}"
    record = text or f'{{"instance_id": "{instance}"}}'
    return f"mkdir -p {where}/eval_outputs; echo '{record}' > {where}/output.jsonl; echo r > {where}/eval_outputs/report.json\n"


def run(host: AgentHost, script: str, attempt: str = "a1", *, model: str = "gpt", **outputs: Any) -> dict[str, Any]:
    """Run an eval of INSTANCE in the shared layout and return its manifest."""
    host.launch(script, attempt, key=host.key(model=model), outputs=SHARED | outputs)
    host.wait(attempt)
    return host.client.manifest(attempt)


def paths(manifest: dict[str, Any]) -> list[str]:
    return [one["path"] for one in manifest["files"]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_runs_own_directory_is_found_by_its_instance(host: AgentHost, layout: str) -> None:
    other = "outputs/data-train/CodeActAgent/other_maxiter_200"
    manifest = run(host, write(layout) + write(other, "another-1"))
    assert manifest["source"] == str(root(host) / layout)
    assert paths(manifest) == ["eval_outputs/report.json", "output.jsonl"]
    body = (root(host) / layout / "output.jsonl").read_bytes()
    assert manifest["files"][1] == {"path": "output.jsonl", "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_an_earlier_run_are_never_claimed(host: AgentHost, layout: str) -> None:
    run(host, write(layout) + write("outputs/old/A/m"), "a0", model="first")
    manifest = run(host, f"echo new > evaluation/evaluation_outputs/{layout}/metadata.json")
    assert "output.jsonl" not in paths(manifest)
    nothing = run(host, "true", "a2", model="third")
    assert (nothing["files"], nothing["source"], nothing["found_by"]) == ([], None, "this attempt wrote no file")


def test_what_lies_beside_the_new_files_is_listed_as_stale(host: AgentHost) -> None:
    directory = root(host) / LAYOUTS[0]
    directory.mkdir(parents=True)
    (directory / "old.json").write_text("{}")
    manifest = run(host, write(LAYOUTS[0]))
    assert manifest["stale"] == ["old.json"]
    assert paths(manifest) == ["eval_outputs/report.json", "output.jsonl"]


def test_an_attempt_that_another_overtook_never_starts_so_it_claims_nothing_of_it(host: AgentHost) -> None:
    run(host, "true", "a1", model="gpt")
    for name in ("started.json", "rc.json", "manifest.json"):
        (host.dir("a1") / name).unlink()
    run(host, write(LAYOUTS[0]), "b1", model="claude")
    with pytest.raises(AgentError, match="will not start here: attempt b1 was started"):
        run(host, "true", "a1", model="gpt")
    assert host.client.manifest("b1")["files"] != []


@fault("E7")
def test_outputs_are_out_of_reach_of_a_later_eval(host: AgentHost) -> None:
    first = run(host, write(LAYOUTS[0]), "a1")
    run(host, write(LAYOUTS[0], text='{"instance_id": "x", "changed": true}'), "a2", model="other")
    for one in first["files"]:
        assert hashlib.sha256(Path(first["root"], one["path"]).read_bytes()).hexdigest() == one["sha256"]
    assert str(host.dir("a1")) in first["root"]


def test_a_link_planted_in_the_attempts_own_directory_leads_no_copy_astray(host: AgentHost) -> None:
    victim = host.home / "victim"
    victim.mkdir()
    plant = "for d in out kept; do rm -rf ~/.fleet/attempts/a1/$d; ln -s ~/victim ~/.fleet/attempts/a1/$d; done\n"
    manifest = run(host, plant + write(LAYOUTS[0]))
    assert list(victim.iterdir()) == []
    assert paths(manifest) == ["eval_outputs/report.json", "output.jsonl"]


def test_a_zero_byte_marker_is_still_the_runs_own(host: AgentHost) -> None:
    manifest = run(host, write(LAYOUTS[0]) + f": > evaluation/evaluation_outputs/{LAYOUTS[0]}/output.jsonl")
    assert [(one["path"], one["size"]) for one in manifest["files"]][1] == ("output.jsonl", 0)


def test_of_several_markers_none_is_guessed(host: AgentHost) -> None:
    manifest = run(host, write("outputs/a/b/c", "x1") + write("outputs/d/e/f", "x2"))
    assert (manifest["files"], manifest["found_by"]) == ([], "several output.jsonl, none of this instance")


def test_without_a_marker_all_new_files_are_kept_as_evidence(host: AgentHost) -> None:
    make = "mkdir -p evaluation/evaluation_outputs/{x,y}/z; "
    manifest = run(
        host, f"bash -c '{make}echo a > evaluation/evaluation_outputs/x/z/log; echo b > evaluation/evaluation_outputs/y/log'"
    )
    assert paths(manifest) == ["x/z/log", "y/log"]


def test_a_pretty_printed_marker_names_its_instance_too(host: AgentHost) -> None:
    other = write("outputs/other/A/m", "x1")
    manifest = run(host, other + write("outputs/own/A/m", text=f'{{\n "history": [],\n "instance_id": "{INSTANCE}"\n}}'))
    assert manifest["source"].endswith("outputs/own/A/m")


def test_an_eval_without_outputs_is_sealed_empty(host: AgentHost) -> None:
    host.launch("exit 0")
    status = host.wait()
    assert status["outputs"] == {"files": 0, "bytes": 0}
    assert host.client.manifest("a1")["files"] == []


def test_what_is_not_a_plain_file_of_a_plain_name_is_skipped_with_the_reason(host: AgentHost) -> None:
    script = """cd $FLEET_OUTPUT_DIR; echo '{}' > output.jsonl; head -c 3000000 /dev/zero > big
    ln -s /etc/passwd link; ln -s / dir; mkfifo fifo; touch 'new
line' 'sp ace' -- '-rf' '$(x)'; mkdir -p a/b/c/d/e/f/g/h; touch a/b/c/d/e/f/g/h/deep
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket"); open(b"\\xff", "w")'"""
    host.launch(script, outputs={"root": "{output_dir}", "max_file_mb": 2})
    host.wait()
    manifest = host.client.manifest("a1")
    assert paths(manifest) == ["output.jsonl"]
    why = {one["path"]: one["why"] for one in manifest["skipped"]}
    assert {why.pop(name) for name in ("link", "dir", "fifo", "socket")} == {"not a regular file"}
    assert why.pop("big") == "3000000 bytes, over the limit of one file"
    assert len(why) == 6 and set(why.values()) == {"unsafe name"}


def test_a_result_over_its_limits_is_cut_with_the_reason(host: AgentHost) -> None:
    script = "cd $FLEET_OUTPUT_DIR; for i in 1 2 3 4 5; do head -c 400000 /dev/zero > f$i; done"
    host.launch(script, outputs={"root": "{output_dir}", "max_total_mb": 1, "max_files": 4})
    host.wait()
    manifest = host.client.manifest("a1")
    assert (len(manifest["files"]), [one["why"] for one in manifest["skipped"]]) == (2, ["over the limit of one result"] * 3)


def test_an_unsealed_attempt_is_sealed_when_its_manifest_is_asked_for(host: AgentHost) -> None:
    run(host, write(LAYOUTS[0]))
    before = host.document("manifest.json")
    (host.dir() / "manifest.json").unlink()
    after = host.client.manifest("a1")
    assert after["files"] == before["files"]


def test_a_running_attempt_has_no_manifest_yet(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    with pytest.raises(AgentError) as caught:
        host.client.manifest("a1")
    assert caught.value.code == "busy"


def test_provenance_shows_the_intent_without_its_environment(host: AgentHost) -> None:
    host.launch("true", env={"API_KEY": "canary-5309"})
    host.wait()
    evidence = host.client.evidence("a1")
    assert evidence["intent"]["spec"]["workdir"] == "~/work"
    assert "canary-5309" not in str(evidence)


def test_results_that_fleet_did_not_start_are_found_and_listed(host: AgentHost) -> None:
    subprocess.run(["sh", "-c", write(LAYOUTS[0]) + write(LAYOUTS[1], "x1")], cwd=host.home / "work", check=True)
    found = host.client.find("~/work/evaluation", [INSTANCE])
    assert [(one["root"], one["instance_id"], one["files"]) for one in found] == [(str(root(host) / LAYOUTS[0]), INSTANCE, 2)]
    assert {one["instance_id"] for one in host.client.find("~/work/evaluation", [])} == {INSTANCE, "x1"}
    assert paths(host.client.manifest_of(found[0]["root"], {})) == ["eval_outputs/report.json", "output.jsonl"]
    for wrong in ("~/absent", "/etc/passwd"):
        with pytest.raises(AgentError) as caught:
            host.client.manifest_of(wrong, {})
        assert caught.value.code == "refused"


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@fault("H4")
@pytest.mark.containers
def test_a_full_disk_costs_neither_exit_code_nor_seal(tmp_path: Path) -> None:
    # As root, like the container hosts: a file system of 400 MB that the eval fills to the last byte.
    with small_disk(tmp_path / "eval1", "400m"), agent_host(tmp_path / "eval1") as host:
        host.launch("head -c 1G /dev/zero > ~/work/filler; exit 7")
        status = host.wait()
        assert (status["state"], status["rc"], status["sealed"]) == ("finished", 7, True)
        assert not (host.fleet / "reserve").exists()
        assert os.statvfs(host.home).f_bavail > 0
        with pytest.raises(AgentError) as caught:
            host.launch("true", "b1", preflight={"disk": {"min_free_gb": 0.1}})
        assert caught.value.code == "not-ready"
        (host.home / "work" / "filler").unlink()
        assert host.launch("true", "b1", preflight={"disk": {"min_free_gb": 0.1}})["outcome"] == "started"


@fault("H5")
@pytest.mark.containers
def test_a_disk_too_full_to_take_an_attempt_is_said_so_and_nothing_starts(tmp_path: Path) -> None:
    with small_disk(tmp_path / "eval1", "300m"), agent_host(tmp_path / "eval1") as host:
        host.client.status()
        with contextlib.suppress(OSError), (host.home / "filler").open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
        with pytest.raises(AgentError) as caught:
            host.launch("true")
        assert caught.value.code == "not-ready" and "No space left" in caught.value.message
        assert (host.starts(), host.state()) == ([], "unknown")
        (host.home / "filler").unlink()
        assert host.launch("true")["outcome"] == "started"
