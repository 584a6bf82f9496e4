"""hosts.yaml is read strictly, and patterns choose exactly the hosts that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.checks.reference import expectations, shipped_files
from fleet.errors import InputError
from fleet.inventory import Inventory, load_inventory
from fleet.inventory.doubts import doubts
from fleet.inventory.patterns import expand
from fleet.inventory.pipelines import Pipelines, agent_source, default_roots


def _load(tmp_path: Path, text: str) -> Inventory:
    config = tmp_path / "ssh_config"
    if not config.exists():
        config.write_text("")
    path = tmp_path / "hosts.yaml"
    path.write_text(text)
    return load_inventory(path, ssh_config=config)


def _refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        _load(tmp_path, text)
    assert "hosts.yaml" in caught.value.message
    return caught.value.message


FLEET = """
defaults: {user: ubuntu, pipeline: openhands}
hosts:
  eval[1-6]:
  gpu1: {address: 10.0.0.5, port: 2222, groups: [gpu], user: root}
groups:
  eval: {hosts: ["eval*"]}
  big: {hosts: ["eval[5-6]"], pipeline: contexttune, workdir: /data/x}
"""


def test_ranges_groups_and_defaults_come_together(tmp_path: Path) -> None:
    inventory = _load(tmp_path, FLEET)
    assert [host.name for host in inventory.hosts] == ["eval1", "eval2", "eval3", "eval4", "eval5", "eval6", "gpu1"]
    assert inventory.get("eval1").pipeline == "openhands"
    assert inventory.get("eval6").pipeline == "contexttune"
    assert inventory.get("eval6").workdir == "/data/x"
    assert inventory.get("eval6").groups == ("eval", "big")
    gpu = inventory.get("gpu1")
    assert (gpu.hop.address, gpu.hop.port, gpu.hop.user, gpu.groups) == ("10.0.0.5", 2222, "root", ("gpu",))
    assert inventory.groups["gpu"] == ("gpu1",)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], "eval1 eval2 eval3 eval4 eval5 eval6 gpu1"),
        (["eval2"], "eval2"),
        (["gpu1", "eval1"], "eval1 gpu1"),
        (["eval*", "!eval3"], "eval1 eval2 eval4 eval5 eval6"),
        (["!eval3", "eval*"], "eval1 eval2 eval4 eval5 eval6"),
        (["!@eval"], "gpu1"),
        (["@big", "@gpu"], "eval5 eval6 gpu1"),
        (["eval[2-3,6]"], "eval2 eval3 eval6"),
        (["*", "!eval[1-5]"], "eval6 gpu1"),
        (["eval1", "eval1"], "eval1"),
    ],
)
def test_patterns_choose_each_host_once_in_inventory_order(tmp_path: Path, patterns: list[str], expected: str) -> None:
    assert " ".join(host.name for host in _load(tmp_path, FLEET).select(patterns)) == expected


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("evla2", "unknown host 'evla2', did you mean 'eval"),
        ("@evals", "unknown group '@evals', did you mean '@eval'"),
        ("node*", "no host matches 'node*'"),
        ("eval[5-9]", "unknown host 'eval7'"),
        ("!eval77", "unknown host 'eval77'"),
        ("eval[9-5]", "must go up"),
        ("eval[1-99999999]", "at most"),
        ("\x1b]0;x", "unknown host '\\\\x1b]0;x'"),
    ],
)
def test_a_pattern_for_nothing_is_an_error_with_a_suggestion(tmp_path: Path, pattern: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        _load(tmp_path, FLEET).select([pattern])
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts: {a: {prot: 22}}", "unknown key hosts.a.prot, did you mean 'port'?"),
        ("defaults: {in_fligt: 3}\nhosts: {a: }", "unknown key defaults.in_fligt, did you mean 'in_flight'?"),
        ("host: {a: }", "unknown key host, did you mean 'hosts'?"),
        ("groups: {g: {hots: [a]}}\nhosts: {a: }", "unknown key groups.g.hots, did you mean 'hosts'?"),
        ("hosts: {a: {port: 0}}", "hosts.a.port"),
        ("hosts: {a: {port: '22'}}", "hosts.a.port"),
        ("hosts: {a: {address: '-oProxyCommand=touch x'}}", "hosts.a.address"),
        ("hosts: {a: {address: 'a b'}}", "is not a host name"),
        ("hosts: {a: {user: 'root`id`'}}", "is not a user name"),
        ("hosts: {a: {user: 'a$b'}}", "is not a user name"),
        ("hosts: {'-oProxyCommand=x': }", "a host name may only hold"),
        ("hosts: {'a;b': }", "a host name may only hold"),
        ("hosts: {'a..b': }", "a host name may only hold"),
        ("hosts: {a: {alias: '{name};x'}}", "hosts.a.alias"),
        ("hosts: {a: {python: '-c'}}", "hosts.a.python"),
        ("hosts: {a: {jump: 'b;c'}}", "is not a jump host"),
        ("hosts: {a: {jump: '-oProxyCommand=x'}}", "is not a jump host"),
        ("hosts: {a: {workdir: 'relative'}}", "hosts.a.workdir"),
        ("hosts: {a: {host_key: 'no'}}", "hosts.a.host_key"),
        ("hosts: {a: {address: 1.1.1.1, alias: b}}", "give `address` or `alias`, not both"),
        ("hosts: {'a[1-2]': {address: 1.1.1.1}}", "one address cannot belong to 2 hosts"),
        ("hosts:\n  a:\n  a:\n", "hosts.yaml:3:3: 'a' is written twice"),
        ("hosts: {'a[1-3]': , a2: }", "a2 is defined twice, by 'a[1-3]' and by 'a2'"),
        ("hosts: {a: {address: h}, b: {address: H}}", "a and b are both H port 22"),
        ("hosts: {a: }\ngroups: {g: {hosts: [b]}}", "unknown host 'b'"),
        ("hosts: {a: {groups: [g, h]}}\ngroups: {g: {port: 1}, h: {port: 2}}", "@g and @h disagree about port"),
        ("hosts: [a]", "hosts"),
        ("- a", "must be a mapping"),
        ("hosts: {a: {", "hosts.yaml:2:1"),
        ("", "no host is defined"),
        ("hosts: {1: }", "hosts"),
        ("hosts: {a: !!python/object/apply:os.system [id]}", "hosts.yaml:1"),
    ],
)
def test_a_mistake_is_refused_with_file_and_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in _refusal(tmp_path, text)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file") as caught:
        load_inventory(tmp_path / "hosts.yaml")
    assert "--hosts-file" in caught.value.hint
    page = re.search(r"docs/[a-z-]+\.md", caught.value.hint)
    assert page is not None
    assert (Path(__file__).parent.parent / page[0]).is_file()


def test_the_example_in_the_repository_loads(tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("Host aws-instance-*\n  User ubuntu\n")
    inventory = load_inventory(Path(__file__).parent.parent / "hosts.yaml", ssh_config=config)
    assert [host.hop.user for host in inventory.hosts] == ["ubuntu"] * 6


def test_file_names_are_relative_to_the_inventory(tmp_path: Path) -> None:
    text = "defaults: {known_hosts: [pins, ~/k], identity_file: keys/id}\nhosts: {a: {address: h}}"
    host = _load(tmp_path, text).get("a")
    assert host.known_hosts == (tmp_path / "pins", Path("~/k").expanduser())
    assert host.hop.identity_files == (tmp_path / "keys" / "id",)


def test_without_a_word_about_keys_the_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    host = _load(tmp_path, "hosts: {a: {address: h}}").get("a")
    assert host.known_hosts[0] == tmp_path / "state" / "fleet" / "known_hosts"
    assert Path("~/.ssh/known_hosts").expanduser() in host.known_hosts[1:]
    assert not host.accept_new_key


def test_jump_hosts_may_be_written_out(tmp_path: Path) -> None:
    text = "hosts: {a: {address: h, jump: [u@one:2200, {address: two, user: v, port: 23}]}, b: {address: i, jump: none}}"
    inventory = _load(tmp_path, text)
    assert [(hop.user, hop.address, hop.port) for hop in inventory.get("a").jumps] == [("u", "one", 2200), ("v", "two", 23)]
    assert inventory.get("b").jumps == ()


@given(st.text(max_size=30))
def test_any_text_as_a_pattern_is_expanded_or_refused(text: str) -> None:
    try:
        names = expand(text, "x")
    except InputError:
        return
    assert 1 <= len(names) <= 10_000


def test_leading_zeros_keep_their_width() -> None:
    assert expand("n[08-10]", "x") == ["n08", "n09", "n10"]
    assert expand("n[1-2]x[3-4]", "x") == ["n1x3", "n1x4", "n2x3", "n2x4"]


PIPELINE = "schema: fleet.pipeline/1\nname: mine\nworkdir: ~/w\ncommand: [run]\noutputs: {root: out}\n"


def test_a_folder_with_a_pipeline_file_is_a_pipeline(tmp_path: Path) -> None:
    folder = tmp_path / "scripts" / "mine"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(PIPELINE + "reference: ../../checkout\n")
    pipelines = Pipelines([tmp_path / "absent", tmp_path / "scripts"])
    assert pipelines.names() == ("mine",)
    assert pipelines.folder("mine") == folder
    assert pipelines.get("mine").reference == tmp_path / "checkout"
    with pytest.raises(InputError, match="unknown pipeline 'mien', did you mean 'mine'"):
        pipelines.get("mien")
    with pytest.raises(InputError, match="unknown pipeline"):
        pipelines.get("../scripts/mine")


def test_a_pipeline_is_named_as_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(PIPELINE)
    with pytest.raises(InputError, match="is 'mine' but the folder is 'other'"):
        Pipelines([tmp_path]).get("other")
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("mine", "other") + "comand: [x]\n")
    with pytest.raises(InputError, match="unknown key comand, did you mean 'command'"):
        Pipelines([tmp_path]).get("other")


def write_pipeline(root: Path, name: str, more: str, *files: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("mine", name) + more)
    for file in files:
        (folder / file).write_text(f"# {file} of {name}\n")
    return folder


def test_an_included_pipeline_gives_its_own_files_from_wherever_it_is(tmp_path: Path) -> None:
    runner = write_pipeline(tmp_path / "fleets", "runner", "ship: [run.py, sub/a.py]\n", "run.py")
    data = write_pipeline(tmp_path / "fleets", "data", "ship: [x.bundle]\ninclude: runner\n", "x.bundle")
    mine = write_pipeline(tmp_path / "own", "mine", "ship: [agent.py]\ninclude: [runner, data]\n", "agent.py", "README.md")
    (runner / "sub").mkdir()
    (runner / "sub" / "a.py").write_text("# a\n")
    pipelines = Pipelines([tmp_path / "own", tmp_path / "fleets"])
    pipeline = pipelines.get("mine")
    assert pipeline.ship == ("agent.py", "run.py", "sub/a.py", "x.bundle")
    assert pipeline.include == (runner, data)
    bodies = {file.key: file.body for file in shipped_files(pipeline, mine)}
    assert bodies["agent.py"] == b"# agent.py of mine\n"
    assert bodies["run.py"] == b"# run.py of runner\n"
    assert bodies["x.bundle"] == b"# x.bundle of data\n"
    sources = {path.rpartition("/")[2]: known.source for path, known in expectations(pipeline, mine).items()}
    assert sources["run.py"] == "remote_scripts/runner" and sources["agent.py"] == "remote_scripts/mine"


@pytest.mark.parametrize(
    ("include", "says"),
    [
        ("runer", "unknown pipeline 'runer', did you mean 'runner'"),
        ("../runner", "not the name of a pipeline"),
        ("[runner, 7]", "not the name of a pipeline"),
        ("mine", "mine has no files for it"),
        ("bare", "bare has no files for it"),
        ("[runner, runner]", r"runner ships run\.py, and so does another"),
        ("twin", r"twin ships agent\.py, and so does another"),
    ],
)
def test_an_include_that_cannot_be_meant_is_refused(tmp_path: Path, include: str, says: str) -> None:
    write_pipeline(tmp_path, "runner", "ship: [run.py]\n", "run.py")
    write_pipeline(tmp_path, "bare", "")
    write_pipeline(tmp_path, "twin", "ship: [agent.py]\n", "agent.py")
    write_pipeline(tmp_path, "mine", f"ship: [agent.py]\ninclude: {include}\n", "agent.py")
    with pytest.raises(InputError, match=says):
        Pipelines([tmp_path]).get("mine")


def test_the_environment_names_pipelines_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REMOTE_SCRIPTS", str(tmp_path))
    assert default_roots()[0] == tmp_path


def test_the_agent_that_is_shipped_is_one_python_file() -> None:
    compile(agent_source(), "fleet_host.py", "exec")


def test_an_unknown_pipeline_and_a_misspelt_group_are_pointed_out(tmp_path: Path) -> None:
    folder = tmp_path / "scripts" / "openhands"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text("")
    text = """
defaults: {user: ubuntu, pipeline: openhands}
hosts:
  a: {address: 10.0.0.1, groups: [gpu]}
  b: {address: 10.0.0.2, groups: [gpu]}
  c: {address: 10.0.0.3, groups: [gpus], pipeline: openhand}
  d: {address: 10.0.0.4, groups: [gpux]}
groups:
  gpux: {}
"""
    found = doubts(_load(tmp_path, text), Pipelines([tmp_path / "scripts"]))
    assert [doubt.host for doubt in found] == ["c", "c"]
    assert "unknown pipeline 'openhand', did you mean 'openhands'?" in found[0].message
    assert "'gpus'" in found[1].message and "did you mean 'gpu'?" in found[1].message
