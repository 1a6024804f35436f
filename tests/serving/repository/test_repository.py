"""Publish, list, roll back, prune on a local disk; two publishers; faults of the file system."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.errors import ClickparityError, ConfigError, GateError
from serving.export.manifest import MANIFEST_PATH, verify_manifest, write_manifest
from serving.repository.repository import ModelRepository, PublishOutcome


def make_export(directory: Path, fingerprint: str, size: int = 1000) -> Path:
    """Files as a SavedModel has them, each of whose bytes depends on the fingerprint."""
    for path in ("saved_model.pb", "variables/variables.index", "assets/v.txt", "fingerprint.pb"):
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(f"{fingerprint} {path} ".encode() * size)
    (directory / "assets/empty").mkdir()  # TensorFlow writes empty folders; a copy need not
    write_manifest(directory, fingerprint=fingerprint, extra={"metrics": {"auc": len(fingerprint)}})
    return directory


@pytest.fixture
def exports(tmp_path: Path) -> dict[str, Path]:
    return {name: make_export(tmp_path / f"export_{name}", name) for name in "ABCD"}


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(tmp_path / "models", "ctr")


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def integer_names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "models/ctr").iterdir() if path.name.isdigit())


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "models/ctr").glob(".tmp-*")]


def test_publish_copies_every_byte_and_lists_it(exports, repository, tmp_path) -> None:
    first = repository.publish(exports["A"])
    second = repository.publish(exports["B"])
    assert (first.number, second.number, second.outcome) == (1, 2, PublishOutcome.PUBLISHED)
    assert second.outcome is PublishOutcome.PUBLISHED
    assert contents(Path(first.path)) == contents(exports["A"])
    assert contents(Path(second.path)) == contents(exports["B"])
    listed = repository.versions()
    assert [(v.number, v.fingerprint, v.live, v.rollback_of, v.problem) for v in listed] == [
        (1, "A", False, None, None),
        (2, "B", True, None, None),
    ]
    assert listed[0].metrics == {"auc": 1}
    assert listed[0].created == verify_manifest(exports["A"]).created
    assert repository.live() == listed[1]
    assert leftovers(tmp_path) == []


def test_everything_is_flushed_before_the_rename_and_the_rename_after(
    exports, repository, tmp_path, monkeypatch
) -> None:
    events: list[str] = []
    sync, rename = os.fsync, os.rename

    def recording_sync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def recording_rename(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recording_sync)
    monkeypatch.setattr(os, "rename", recording_rename)
    repository.publish(exports["A"])
    model = tmp_path / "models/ctr"
    renamed = events.index("rename")
    flushed = {event.split(".tmp-", 1)[1].partition("/")[2] for event in events[1:renamed]}
    files = contents(exports["A"])
    folders = {str(Path(path).parent) for path in files} - {"."}
    assert flushed == {*files, *folders, ""}  # "" is the version's own directory
    assert events[renamed + 1 :] == [str(model)]
    assert events[0] == str(model.parent)  # made for the first version


def test_the_live_fingerprint_is_not_published_again(exports, repository, tmp_path) -> None:
    repository.publish(exports["A"])
    again = repository.publish(exports["A"])
    assert (again.number, again.outcome) == (1, PublishOutcome.ALREADY_LIVE)
    assert "live already, as version 1" in again.message
    repository.publish(exports["B"])
    back = repository.publish(exports["A"])  # older than live: somebody wants it again
    assert (back.number, back.outcome) == (3, PublishOutcome.PUBLISHED)
    assert repository.publish(exports["A"], force=True).number == 4
    assert integer_names(tmp_path) == ["1", "2", "3", "4"]


def test_damaged_live_bytes_are_cured_by_publishing_again(exports, repository) -> None:
    live = Path(repository.publish(exports["A"]).path)
    (live / "assets/v.txt").write_bytes(b"x" * (live / "assets/v.txt").stat().st_size)
    cure = repository.publish(exports["A"])
    assert (cure.number, cure.outcome) == (2, PublishOutcome.PUBLISHED)
    assert contents(Path(cure.path)) == contents(exports["A"])


def test_check_sees_the_unpublished_copy_once(exports, repository, tmp_path) -> None:
    seen = []

    def check(directory: Path) -> None:
        seen.append((directory, contents(directory), integer_names(tmp_path)))

    repository.publish(exports["A"], check=check)
    ((directory, copied, numbers),) = seen
    assert directory.name.startswith(".tmp-")
    assert directory.parent == tmp_path / "models/ctr"
    assert copied == contents(exports["A"])
    assert numbers == []


def test_a_failing_check_publishes_nothing(exports, repository, tmp_path) -> None:
    repository.publish(exports["A"])

    def check(directory: Path) -> None:
        raise GateError("the copy must load", directory)

    with pytest.raises(GateError, match="the copy must load"):
        repository.publish(exports["B"], check=check)
    with pytest.raises(GateError, match="the copy must load"):
        repository.publish(exports["A"], check=check, force=True)
    assert integer_names(tmp_path) == ["1"]
    assert leftovers(tmp_path) == []
    assert repository.publish(exports["B"]).number == 2  # the lock is free again


def test_a_check_that_changes_the_copy_is_refused(exports, repository, tmp_path) -> None:
    def check(directory: Path) -> None:
        (directory / "__pycache__").mkdir()
        (directory / "__pycache__/x.pyc").write_bytes(b"")

    with pytest.raises(GateError, match=r"__pycache__/x\.pyc is extra"):
        repository.publish(exports["A"], check=check)
    assert integer_names(tmp_path) == leftovers(tmp_path) == []


def truncate(export: Path) -> None:
    os.truncate(export / "assets/v.txt", 7)


def flip(export: Path) -> None:
    data = bytearray((export / "variables/variables.index").read_bytes())
    data[11] ^= 1
    (export / "variables/variables.index").write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"assets/v\.txt is truncated \(7 bytes, 15000 bytes expected\)"),
        (flip, r"export_A must be as .*variables/variables\.index is altered"),
        (lambda e: (e / "assets/more.txt").write_bytes(b""), r"assets/more\.txt is extra"),
        (lambda e: shutil.rmtree(e / "variables"), r"variables/variables\.index is missing"),
        (lambda e: (e / MANIFEST_PATH).unlink(), r"no assets\.extra/manifest\.json"),
    ],
)
def test_a_damaged_export_is_refused(exports, repository, tmp_path, damage, message) -> None:
    damage(exports["A"])
    with pytest.raises(GateError, match=message):
        repository.publish(exports["A"])
    if (tmp_path / "models/ctr").exists():
        assert integer_names(tmp_path) == leftovers(tmp_path) == []


def test_a_file_that_changes_while_it_is_copied_is_refused(
    exports, repository, tmp_path, monkeypatch
) -> None:
    copy = shutil.copyfile

    def torn_copy(source, target):
        copy(source, target)
        if Path(target).name == "variables.index":
            os.truncate(target, 3)

    monkeypatch.setattr(shutil, "copyfile", torn_copy)
    with pytest.raises(GateError, match=r"variables/variables\.index is truncated"):
        repository.publish(exports["A"])
    assert integer_names(tmp_path) == leftovers(tmp_path) == []


def test_what_is_no_saved_model_is_refused(tmp_path, repository) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/notes.txt").write_text("hello")
    write_manifest(tmp_path / "export", fingerprint="A", extra={})
    with pytest.raises(GateError, match=r"no saved_model\.pb"):
        repository.publish(tmp_path / "export")
    with pytest.raises(ConfigError, match="does not exist"):
        repository.publish(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", ".tmp-1", "-x", "a b", "é", "ctr\n", "a" * 129]
)
def test_names_that_are_no_model_names(tmp_path, name) -> None:
    with pytest.raises(ConfigError, match="a model's name must be"):
        ModelRepository(tmp_path, name)


def test_unknown_address(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"local directory or a gs:// address; got s3://bucket"):
        ModelRepository("s3://bucket/models", "ctr")


# --- rollback ---------------------------------------------------------------------------------


def test_rollback_publishes_the_older_bytes_under_the_next_number(exports, repository) -> None:
    for name in "AB":
        repository.publish(exports[name])
    answer = repository.rollback()
    assert (answer.number, answer.fingerprint) == (3, "A")
    assert "version 3 of ctr serves the bytes of version 1 again" in answer.message
    old, new = contents(exports["A"]), contents(Path(answer.path))
    assert old.keys() == new.keys()
    assert [path for path in old if old[path] != new[path]] == [MANIFEST_PATH]
    live = repository.live()
    assert (live.number, live.fingerprint, live.rollback_of, live.metrics) == (
        3,
        "A",
        1,
        {"auc": 1},
    )
    assert verify_manifest(answer.path).fingerprint == "A"


def test_a_second_rollback_goes_further_back_not_forward(exports, repository) -> None:
    for name in "ABC":
        repository.publish(exports[name])
    assert repository.rollback().fingerprint == "B"  # 4 has 2's bytes
    again = repository.rollback()
    assert (again.number, again.fingerprint) == (5, "A")
    assert repository.live().rollback_of == 1
    with pytest.raises(ConfigError, match="needs an older version that was not rolled back"):
        repository.rollback()
    assert repository.rollback(to=3).fingerprint == "C"  # by name, anything goes
    assert repository.live().rollback_of == 3


def test_rollback_after_a_rollback_and_a_new_model(exports, repository) -> None:
    for name in "AB":
        repository.publish(exports[name])
    repository.rollback()  # 3: A
    repository.publish(exports["C"])  # 4
    answer = repository.rollback()  # live before 4 was 3
    assert (answer.number, answer.fingerprint, repository.live().rollback_of) == (5, "A", 3)
    with pytest.raises(ConfigError):
        repository.rollback()  # 2 was rolled back, 1 is what 5 serves


def test_rollback_still_skips_the_bad_model_when_its_middle_is_pruned(exports, repository) -> None:
    for name in "DAB":
        repository.publish(exports[name])
    repository.rollback()  # 4 = A
    shutil.rmtree(Path(repository.publish(exports["C"]).path).parent / "2")
    repository.rollback()  # 6 = 4 = A; B and C are bad
    assert repository.rollback().fingerprint == "D"


def test_a_repeated_run_does_not_undo_a_rollback(exports, repository, tmp_path) -> None:
    for name in "AB":
        repository.publish(exports[name])
    repository.rollback()
    repository.prune(keep=1)
    again = repository.publish(exports["B"])
    assert (again.number, again.outcome) == (3, PublishOutcome.ROLLED_BACK)
    assert "version 3 rolled B back" in again.message
    assert integer_names(tmp_path) == ["3"]
    assert repository.publish(exports["A"]).outcome is PublishOutcome.ALREADY_LIVE
    assert repository.publish(exports["B"], force=True).number == 4
    assert repository.publish(exports["C"]).number == 5


def test_what_was_rolled_back_stays_out_after_every_later_rollback(exports, repository) -> None:
    for name in "ABC":
        repository.publish(exports[name])
    repository.rollback()  # 4: B again, C is out
    assert repository.live().rejected_fingerprints == {"C"}
    repository.rollback()  # 5: A again, B is out too
    assert repository.live().rejected_fingerprints == {"B", "C"}
    for name in "BC":
        assert repository.publish(exports[name]).outcome is PublishOutcome.ROLLED_BACK
    repository.publish(exports["D"])  # 6
    repository.rollback()  # 7: what was live before 6, with all that it had rolled back
    assert repository.live().rejected_fingerprints == {"B", "C", "D"}
    for name in "BCD":
        assert repository.publish(exports[name]).outcome is PublishOutcome.ROLLED_BACK
    assert repository.rollback(to=3).fingerprint == "C"  # by name: it is in service again
    assert repository.live().rejected_fingerprints == {"A", "B", "D"}


@pytest.mark.parametrize("to", [0, 2, 9])
def test_rollback_to_what_is_not_an_older_version(exports, repository, to) -> None:
    for name in "AB":
        repository.publish(exports[name])
    with pytest.raises(ConfigError, match=r"older version; got \d\. The versions are: 1, 2"):
        repository.rollback(to=to)


def test_rollback_with_nothing_to_go_back_to(exports, repository, tmp_path) -> None:
    with pytest.raises(ConfigError, match="must have versions"):
        repository.rollback()
    assert not (tmp_path / "models").exists()  # a misspelt name leaves no directory
    repository.publish(exports["A"])
    with pytest.raises(ConfigError, match="needs an older version"):
        repository.rollback()


def test_rollback_to_damaged_bytes_is_refused(exports, repository, tmp_path) -> None:
    for name in "AB":
        repository.publish(exports[name])
    flip(tmp_path / "models/ctr/1")
    with pytest.raises(GateError, match=r"variables/variables\.index is altered"):
        repository.rollback()
    assert integer_names(tmp_path) == ["1", "2"]


# --- prune and list ---------------------------------------------------------------------------


def test_prune_keeps_the_newest_and_numbers_only_grow(exports, repository, tmp_path) -> None:
    for name in "ABCD":
        repository.publish(exports[name])
    assert repository.prune(keep=2) == [1, 2]
    assert integer_names(tmp_path) == ["3", "4"]
    assert repository.prune(keep=5) == []
    assert repository.prune(keep=1) == [3]
    assert repository.live().fingerprint == "D"
    assert repository.publish(exports["A"]).number == 5
    assert leftovers(tmp_path) == []
    with pytest.raises(ConfigError, match="at least the live version; got 0"):
        repository.prune(keep=0)


def test_prune_takes_the_number_away_before_it_deletes(
    exports, repository, tmp_path, monkeypatch
) -> None:
    for name in "AB":
        repository.publish(exports[name])
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, **_: (_ for _ in ()).throw(InterruptedError())
    )
    with pytest.raises(InterruptedError):
        repository.prune(keep=1)
    monkeypatch.undo()
    assert integer_names(tmp_path) == ["2"]
    (doomed,) = leftovers(tmp_path)
    assert doomed.startswith(".tmp-1-")
    repository.publish(exports["C"])
    assert leftovers(tmp_path) == []


def test_foreign_and_broken_versions_are_listed_and_never_overwritten(
    exports, repository, tmp_path
) -> None:
    repository.publish(exports["A"])
    model = tmp_path / "models/ctr"
    (model / "2").mkdir()
    (model / "3").write_text("a file")
    (model / "0005").mkdir()
    (model / "notes").mkdir()
    os.truncate(model / "1/saved_model.pb", 1)
    listed = {version.number: version for version in repository.versions()}
    assert sorted(listed) == [1, 2, 3, 5]
    assert "saved_model.pb is truncated" in listed[1].problem
    assert "not published by clickparity" in listed[2].problem
    assert listed[3].problem == "a file where a directory is expected"
    assert listed[5].live
    assert repository.publish(exports["B"]).number == 6
    assert repository.prune(keep=1) == [1, 2, 3, 5]
    assert (model / "notes").is_dir()


def test_no_versions_yet(repository) -> None:
    assert repository.versions() == []
    assert repository.live() is None


# --- the file system says no ------------------------------------------------------------------


def test_a_file_where_the_models_directory_is_expected(exports, tmp_path) -> None:
    (tmp_path / "models").write_text("not a directory")
    repository = ModelRepository(tmp_path / "models", "ctr")
    with pytest.raises(ConfigError, match="must be a directory that this user may write to"):
        repository.publish(exports["A"])
    with pytest.raises(ConfigError, match="must be a directory"):
        repository.versions()


def test_a_file_where_the_model_is_expected(exports, repository, tmp_path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/ctr").write_text("not a directory")
    with pytest.raises(ConfigError, match="must be a directory that this user may write to"):
        repository.publish(exports["A"])


def test_a_full_disk_leaves_the_live_version_alone(
    exports, repository, tmp_path, monkeypatch
) -> None:
    repository.publish(exports["A"])
    synced = []
    sync = os.fsync

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ClickparityError, match="room for one more version") as caught:
        repository.publish(exports["B"])
    monkeypatch.undo()
    assert caught.value.exit_code == 1  # space may be free later
    assert integer_names(tmp_path) == ["1"]
    assert leftovers(tmp_path) == []
    assert repository.publish(exports["B"]).number == 2


def _limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_write_that_the_kernel_cuts_short(tmp_path) -> None:
    export = make_export(tmp_path / "export", "large", size=5000)
    code = (
        "import sys\n"
        "from serving.repository.repository import ModelRepository\n"
        "from pipeline.errors import ClickparityError\n"
        "try:\n    ModelRepository(sys.argv[1], 'ctr').publish(sys.argv[2])\n"
        "except ClickparityError as error:\n    print(error)\n    sys.exit(error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "models"), str(export)],
        preexec_fn=_limit_file_size,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "room for one more version" in done.stdout
    assert integer_names(tmp_path) == leftovers(tmp_path) == []


# --- two publishers ---------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from serving.repository.repository import ModelRepository
def check(directory):
    print("checking", flush=True)
    time.sleep(600)
ModelRepository(sys.argv[1], "ctr").publish(sys.argv[2], check=check)
"""


def test_the_second_publisher_is_told_who_is_first_and_a_killed_one_blocks_nobody(
    exports, repository, tmp_path
) -> None:
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "models"), str(exports["A"])]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "checking\n"
            for attempt in (
                lambda: repository.publish(exports["B"]),
                lambda: repository.publish(exports["A"]),
            ):
                with pytest.raises(
                    ClickparityError, match=f"got process {holder.pid} on "
                ) as caught:
                    attempt()
                assert caught.value.exit_code == 1
            assert integer_names(tmp_path) == []
            assert len(leftovers(tmp_path)) == 1  # the holder's own, untouched
        finally:
            holder.send_signal(signal.SIGKILL)
    assert len(leftovers(tmp_path)) == 1
    assert repository.publish(exports["B"]).number == 1
    assert leftovers(tmp_path) == []


def test_many_publishers_at_once_get_different_numbers(exports, tmp_path) -> None:
    start = threading.Barrier(8)
    published: list[tuple[int, str]] = []
    busy: list[ClickparityError] = []

    def publish(name: str) -> None:
        start.wait()
        for _ in range(5):
            try:
                answer = ModelRepository(tmp_path / "models", "ctr").publish(
                    exports[name], force=True
                )
                published.append((answer.number, name))
            except ClickparityError as error:
                busy.append(error)

    threads = [threading.Thread(target=publish, args=("ABCD"[i % 4],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(published) + len(busy) == 40
    assert busy
    assert sorted(number for number, _ in published) == list(range(1, len(published) + 1))
    for number, name in published:
        assert contents(tmp_path / f"models/ctr/{number}") == contents(exports[name])
    assert all("only one publisher" in str(error) for error in busy)
