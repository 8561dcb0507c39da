"""Hostile archives: refused with their code, nothing outside the target folder, nothing kept."""

import gzip
import io
import os
import stat
import struct
import tarfile
import tempfile
import zipfile

import pytest

from verossim.data import archives, open_source
from verossim.errors import VerossimError

GOOD = b"a,b\n1,2\n"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A temporary folder of the test's own, to see that nothing is left in it."""
    folder = tmp_path / "outer" / "temporary"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def refused(path, code, temporary):
    before = sorted(os.walk(temporary.parent))
    with pytest.raises(VerossimError) as error:
        open_source(path)
    assert (error.value.code, error.value.status) == (code, 65), error.value
    assert error.value.hint and path.name in error.value.message
    assert sorted(os.walk(temporary.parent)) == before
    return error.value


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["../evil.csv", "a/../../evil.csv", "/etc/evil.csv", "C:/evil.csv", "C:evil.csv",
                                  "..\\evil.csv", "a\0b.csv", "x" * 300 + ".csv"])
def test_zip_names_that_lead_out(tmp_path, temporary, name):
    member = zipfile.ZipInfo("placeholder")
    member.filename = member.orig_filename = name
    path = zipped(tmp_path / "evil.zip", [("good.csv", GOOD)])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, GOOD)
    refused(path, "ARC_PATH", temporary)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_zip_links_and_devices(tmp_path, temporary, kind):
    member = zipfile.ZipInfo("link.csv")
    member.external_attr = (kind | 0o777) << 16
    refused(zipped(tmp_path / "evil.zip", [("good.csv", GOOD), (member, "/etc/passwd")]), "ARC_PATH", temporary)


def test_zip_with_a_name_twice_or_a_file_as_folder(tmp_path, temporary):
    with pytest.warns(UserWarning):
        refused(zipped(tmp_path / "a.zip", [("a.csv", GOOD), ("a.csv", GOOD)]), "ARC_PATH", temporary)
    refused(zipped(tmp_path / "b.zip", [("a.csv", GOOD), ("a.csv/b.csv", GOOD)]), "ARC_PATH", temporary)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices(tmp_path, temporary, kind):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("good.csv"))
        member = tarfile.TarInfo("evil")
        member.type, member.linkname = kind, "../.."
        archive.addfile(member)
    refused(path, "ARC_PATH", temporary)


@pytest.mark.parametrize("name", ["../evil.csv", "/tmp/evil.csv", "a/../../b.csv"])
def test_tar_names_that_lead_out(tmp_path, temporary, name):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("placeholder")
        member.name, member.size = name, len(GOOD)
        archive.addfile(member, io.BytesIO(GOOD))
    refused(path, "ARC_PATH", temporary)


ZEROS = b"0,0\n" * (25 << 20 >> 1)


@pytest.mark.parametrize("pack", ["zip", "gz", "tar.gz"])
def test_bombs(tmp_path, temporary, pack):
    path = tmp_path / f"bomb.{pack}"
    if pack == "zip":
        zipped(path, [("zeros.csv", ZEROS)])
    elif pack == "gz":
        path.write_bytes(gzip.compress(ZEROS, 6))
    else:
        with tarfile.open(path, "w:gz", compresslevel=6) as archive:
            member = tarfile.TarInfo("zeros.csv")
            member.size = len(ZEROS)
            archive.addfile(member, io.BytesIO(ZEROS))
    assert path.stat().st_size * archives.RATIO < len(ZEROS)
    refused(path, "ARC_BOMB", temporary)


def test_a_sparse_tar_bomb(tmp_path, temporary):
    path = tmp_path / "bomb.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("zeros.csv")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "zeros.csv",
                              "GNU.sparse.realsize": str(1 << 40)}
        data = b"1\n0\n512\n".ljust(512, b"\0") + b"a" * 512
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    refused(path, "ARC_BOMB", temporary)


def test_archives_in_archives(tmp_path, temporary):
    inner = zipped(tmp_path / "inner.zip", [("a.csv", GOOD)]).read_bytes()
    refused(zipped(tmp_path / "a.zip", [("inner.zip", inner)]), "ARC_BOMB", temporary)
    refused(zipped(tmp_path / "b.zip", [("innocent.csv", gzip.compress(GOOD))]), "ARC_BOMB", temporary)
    (tmp_path / "c.gz").write_bytes(gzip.compress(gzip.compress(GOOD)))
    refused(tmp_path / "c.gz", "ARC_BOMB", temporary)


def test_too_many_entries(tmp_path, temporary, monkeypatch):
    monkeypatch.setattr(archives, "ENTRIES", 100)
    path = zipped(tmp_path / "many.zip", [(f"{n}.csv", GOOD) for n in range(101)])
    assert "101" in refused(path, "ARC_BOMB", temporary).message
    path = tmp_path / "many.tar"
    with tarfile.open(path, "w") as archive:
        for n in range(101):
            archive.addfile(tarfile.TarInfo(f"{n}.csv"))
    refused(path, "ARC_BOMB", temporary)


def test_a_million_entries_are_refused_before_they_are_listed(tmp_path, temporary):
    path = zipped(tmp_path / "many.zip", [("a.csv", GOOD)])
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\5\6")
    zip64 = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 10**6, 10**6, 46 * 10**6, 0)
    zip64 += struct.pack("<IIQI", 0x07064B50, 0, end, 1)
    data[end + 8:end + 12] = b"\xff" * 4
    path.write_bytes(data[:end] + zip64 + data[end:])
    assert "1,000,000" in refused(path, "ARC_BOMB", temporary).message


def test_entries_that_share_their_bytes(tmp_path, temporary):
    path = zipped(tmp_path / "overlap.zip", [("a.csv", GOOD * 100), ("b.csv", GOOD * 100)])
    data = bytearray(path.read_bytes())
    second = data.rfind(b"PK\1\2")
    data[second + 42:second + 46] = struct.pack("<I", 10)
    path.write_bytes(data)
    assert "share" in refused(path, "ARC_BOMB", temporary).message


def test_encrypted(tmp_path, temporary):
    path = zipped(tmp_path / "locked.zip", [("a.csv", GOOD)])
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.find(mark) + place] |= 1
    path.write_bytes(data)
    refused(path, "ARC_LOCKED", temporary)


@pytest.mark.parametrize("keep", [30, 60, 0.5, 0.9])
def test_cut_off_archives(tmp_path, temporary, keep):
    whole = zipped(tmp_path / "whole.zip", [("a.csv", os.urandom(3000).hex())]).read_bytes()
    path = tmp_path / "cut.zip"
    path.write_bytes(whole[: keep if keep > 1 else int(keep * len(whole))])
    refused(path, "ARC_CORRUPT", temporary)
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "whole.zip", "a.csv")
    packed = (tmp_path / "whole.tar.gz").read_bytes()
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(packed[: len(packed) // 2])
    refused(path, "ARC_CORRUPT", temporary)


def test_honest_compression_is_let_through(tmp_path):
    path = tmp_path / "plain.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1.5,2.5\n" * 500_000))
    assert sum(len(block) for block in open_source(path).blocks()) == 500_000


def test_a_sparse_bomb_in_a_packed_tar(tmp_path, temporary):
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("zeros.csv")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "zeros.csv",
                              "GNU.sparse.realsize": str(100 << 20)}
        data = b"1\n0\n512\n".ljust(512, b"\0") + b"a" * 512
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    refused(path, "ARC_BOMB", temporary)


@pytest.mark.parametrize("pack", ["zip", "tar"])
def test_folders_are_entries_too(tmp_path, temporary, monkeypatch, pack):
    monkeypatch.setattr(archives, "ENTRIES", 100)
    names = [f"{n}/" + "a/" * 20 + "b.csv" for n in range(5)]
    path = tmp_path / f"folders.{pack}"
    if pack == "zip":
        zipped(path, [(name, GOOD) for name in names])
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
    refused(path, "ARC_BOMB", temporary)
    path = tmp_path / "empty.tar"
    with tarfile.open(path, "w") as archive:
        for n in range(101):
            member = tarfile.TarInfo(f"{n}")
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
    refused(path, "ARC_BOMB", temporary)


@pytest.mark.parametrize("depth", [archives.DEPTH + 1, 1900])
def test_members_that_lie_too_deep(tmp_path, temporary, depth):
    refused(zipped(tmp_path / "deep.zip", [("a/" * depth + "b.csv", GOOD)]), "ARC_PATH", temporary)
    path = tmp_path / "deep.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a/" * depth + "b.csv"))
    refused(path, "ARC_PATH", temporary)


def test_names_too_long_as_a_whole(tmp_path, temporary):
    refused(zipped(tmp_path / "long.zip", [(("x" * 200 + "/") * 20 + "b.csv", GOOD)]), "ARC_PATH", temporary)


def test_honest_folders_are_let_through(tmp_path):
    names = ["a/" * archives.DEPTH + "b.csv", "a/c.csv", "a/a/d.csv"]
    assert sum(len(block) for block in open_source(zipped(tmp_path / "deep.zip", [(n, GOOD) for n in names])).blocks()) == 3
