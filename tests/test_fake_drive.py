"""Google's own client for Python against the Drive that our tests use.

Nobody here wrote this client, so what it understands is no mistake of ours
seen in a mirror. It is described to itself by Google: its copy of the API's
description says which methods and parameters there are.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rig

WHY = "pip install google-api-python-client: the fake Drive is held against it"
discovery = pytest.importorskip("googleapiclient.discovery", reason=WHY)
errors = pytest.importorskip("googleapiclient.errors", reason=WHY)
transfer = pytest.importorskip("googleapiclient.http", reason=WHY)
httplib2 = pytest.importorskip("httplib2", reason=WHY)

FOLDER = "application/vnd.google-apps.folder"
FIELDS = "id,name,mimeType,parents,size,md5Checksum,sha256Checksum,appProperties,trashed"
UNIT = 256 << 10


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the fake as a program."""
    path = tmp_path_factory.mktemp("fakedrive") / "fakedrive"
    package = "./checkpoint/drivetest/fakedrive"
    subprocess.run(["go", "build", "-o", path, package], cwd=rig.ROOT, check=True)
    return path


class Fake:
    """A running fake Drive and a client for it."""

    def __init__(self, url: str) -> None:
        self.url = url
        documents = Path(discovery.__file__).parent / "discovery_cache" / "documents"
        document = json.loads((documents / "drive.v3.json").read_text())
        document["rootUrl"] = url + "/"
        document["baseUrl"] = url + "/drive/v3/"
        http = transfer.build_http()
        # httplib2 repeats a request whose body is used up, and waits for ever for the answer.
        http.timeout = 3
        self.service = discovery.build_from_document(document, http=http)
        self.files = self.service.files()

    def violations(self) -> str:
        """What the client did that Drive would refuse."""
        with urllib.request.urlopen(self.url + "/violations") as answer:
            return answer.read().decode()

    def folder(self, name: str, parent: str = "root") -> str:
        """Makes a folder and returns its id."""
        body = {"name": name, "mimeType": FOLDER, "parents": [parent]}
        return self.files.create(body=body, fields="id").execute()["id"]

    def upload(self, name: str, content: bytes, parent: str = "root", **body: Any) -> dict:
        """Uploads in one request."""
        media = transfer.MediaIoBaseUpload(io.BytesIO(content), "application/octet-stream")
        body = {"name": name, "parents": [parent], **body}
        return self.files.create(body=body, media_body=media, fields=FIELDS).execute()

    def content(self, file_id: str, chunk: int = 1 << 20) -> bytes:
        """Downloads in pieces."""
        out = io.BytesIO()
        loader = transfer.MediaIoBaseDownload(out, self.files.get_media(fileId=file_id), chunk)
        done = False
        while not done:
            _, done = loader.next_chunk()
        return out.getvalue()


@pytest.fixture
def start(program: Path) -> Iterator[Callable[..., Any]]:
    """Starts fakes; each ends with its block."""

    @contextmanager
    def run(*flags: str) -> Iterator[Fake]:
        process = subprocess.Popen([program, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield Fake(process.stdout.readline().strip())
        finally:
            process.stdin.close()
            assert process.wait(timeout=20) == 0

    return run


def reason(failure: pytest.ExceptionInfo) -> tuple[int, str]:
    """Status and reason as the client understands them."""
    return failure.value.resp.status, failure.value.error_details[0]["reason"]


def test_small_files(start: Callable[..., Any]) -> None:
    with start() as drive:
        folder = drive.folder("Outlast")
        content = b"weights" * 1000
        made = drive.upload("model.pt", content, folder, appProperties={"outlast": "1"})
        assert made["size"] == str(len(content)), "a string, as JSON cannot hold 64 bits"
        assert made["sha256Checksum"] == hashlib.sha256(content).hexdigest()
        assert made["md5Checksum"] == hashlib.md5(content).hexdigest()
        assert made["parents"] == [folder]
        got = drive.files.get(fileId=made["id"], fields=FIELDS).execute()
        assert got == made
        assert drive.content(made["id"], chunk=1000) == content
        assert drive.files.get(fileId=made["id"]).execute() == {
            "kind": "drive#file",
            "id": made["id"],
            "name": "model.pt",
            "mimeType": "application/octet-stream",
        }, "the fields that come unasked"
        assert drive.violations() == ""


def test_resumable_upload(start: Callable[..., Any]) -> None:
    with start() as drive:
        content = bytes(range(256)) * 4 * 1024 * 3 + b"tail"
        media = transfer.MediaIoBaseUpload(
            io.BytesIO(content), "application/octet-stream", chunksize=4 * UNIT, resumable=True
        )
        request = drive.files.create(body={"name": "big"}, media_body=media, fields=FIELDS)
        made, seen = None, []
        while made is None:
            status, made = request.next_chunk()
            seen.append(status.resumable_progress if status else len(content))
        assert seen == [4 * UNIT, 8 * UNIT, 12 * UNIT, len(content)]
        assert made["sha256Checksum"] == hashlib.sha256(content).hexdigest()
        assert drive.content(made["id"]) == content
        assert drive.violations() == ""


@pytest.mark.parametrize("seed", range(5))
def test_resumable_upload_under_faults(start: Callable[..., Any], seed: int) -> None:
    """The client's own recovery works: it asks for the status after an error."""
    with start("--faults", "20", "--seed", str(seed)) as drive:
        content = bytes(range(256)) * 1024 * 12
        for _ in range(200):
            try:
                if made := _upload_once(drive, content):
                    break
            except (errors.HttpError, OSError, httplib2.HttpLib2Error, ValueError):
                continue
        assert made["size"] == str(len(content))
        assert drive.violations() == ""


def _upload_once(drive: Fake, content: bytes) -> dict | None:
    media = transfer.MediaIoBaseUpload(
        io.BytesIO(content), "application/octet-stream", chunksize=2 * UNIT, resumable=True
    )
    request = drive.files.create(body={"name": "big"}, media_body=media, fields=FIELDS)
    made = None
    for _ in range(100):
        try:
            _, made = request.next_chunk()
        except errors.HttpError as failure:
            if failure.resp.status in (404, 410):
                return None
        except (OSError, httplib2.HttpLib2Error):
            continue
        if made is not None:
            return made
    return None


def test_generated_ids(start: Callable[..., Any]) -> None:
    with start() as drive:
        ids = drive.files.generateIds(count=3).execute()["ids"]
        assert len(set(ids)) == 3
        assert drive.upload("a", b"a", id=ids[0])["id"] == ids[0]
        with pytest.raises(errors.HttpError) as failure:
            drive.upload("a", b"a", id=ids[0])
        assert reason(failure) == (409, "fileIdInUse")
        with pytest.raises(errors.HttpError) as failure:
            drive.upload("a", b"a", id="not-generated")
        assert failure.value.resp.status == 400


def test_queries_and_pages(start: Callable[..., Any]) -> None:
    with start("--page", "3") as drive:
        folder = drive.folder("it's a \\ folder")
        names = {f"file {n}" for n in range(10)}
        for name in names:
            drive.upload(name, b"x", folder, appProperties={"run": "r1"})
        drive.upload("other", b"x")

        def query(q: str) -> set[str]:
            found, request = [], drive.files.list(q=q, pageSize=4, fields="nextPageToken,incompleteSearch,files(name)")
            while request is not None:
                page = request.execute()
                found += [f["name"] for f in page["files"]]
                request = drive.files.list_next(request, page)
            assert len(found) == len(set(found))
            return set(found)

        assert query(f"'{folder}' in parents and trashed = false") == names
        assert query("appProperties has { key='run' and value='r1' }") == names
        assert query("name = 'it\\'s a \\\\ folder'") == {"it's a \\ folder"}
        assert query(f"mimeType != '{FOLDER}' and 'root' in parents") == {"other"}
        with pytest.raises(errors.HttpError) as failure:
            drive.files.list(q="nonsense").execute()
        assert reason(failure) == (400, "invalid")


def test_names_lag_behind(start: Callable[..., Any]) -> None:
    with start("--lag", "1h") as drive:
        made = drive.upload("new", b"x")
        assert drive.files.list(q="name = 'new'").execute()["files"] == []
        assert len(drive.files.list(q="'root' in parents").execute()["files"]) == 1
        assert drive.files.get(fileId=made["id"]).execute()["name"] == "new"


def test_trash_copy_and_delete(start: Callable[..., Any]) -> None:
    with start("--limit", "1000000") as drive:
        folder = drive.folder("f")
        made = drive.upload("a", b"12345", folder)
        copied = drive.files.copy(fileId=made["id"], body={"name": "b"}, fields=FIELDS).execute()
        assert copied["sha256Checksum"] == made["sha256Checksum"]
        drive.files.update(fileId=folder, body={"trashed": True}).execute()
        got = drive.files.get(fileId=made["id"], fields="trashed,explicitlyTrashed").execute()
        assert got == {"trashed": True, "explicitlyTrashed": False}, "its folder is"
        about = drive.service.about().get(fields="user/emailAddress,storageQuota").execute()
        assert about["user"] == {"emailAddress": "ann@example.com"}
        assert about["storageQuota"]["limit"] == "1000000"
        assert about["storageQuota"]["usageInDriveTrash"] == "10"
        assert drive.files.delete(fileId=folder).execute() == ""
        with pytest.raises(errors.HttpError) as failure:
            drive.files.get(fileId=made["id"]).execute()
        assert reason(failure) == (404, "notFound")


def test_full_drive(start: Callable[..., Any]) -> None:
    with start("--limit", "10") as drive, pytest.raises(errors.HttpError) as failure:
        drive.upload("a", b"eleven byte")
    assert reason(failure) == (403, "storageQuotaExceeded")


def test_what_does_not_exist_is_refused(start: Callable[..., Any]) -> None:
    with start() as drive:
        for path in (
            "/drive/v3/files?banana=1",
            "/drive/v3/files?fields=files(banana),nextPageToken,incompleteSearch",
            "/drive/v3/about",
        ):
            with pytest.raises(urllib.error.HTTPError) as failure:
                urllib.request.urlopen(drive.url + path)
            assert failure.value.code == 400
            assert "error" in json.load(failure.value)
        assert len(drive.violations().splitlines()) == 3


def test_tokens(start: Callable[..., Any]) -> None:
    with start("--auth") as drive:
        with pytest.raises(errors.HttpError) as failure:
            drive.files.list().execute()
        assert reason(failure) == (401, "authError")
        form = b"grant_type=refresh_token&refresh_token=r"
        with urllib.request.urlopen(drive.url + "/token", form) as answer:
            token = json.load(answer)["access_token"]
        request = drive.files.list()
        request.headers["Authorization"] = "Bearer " + token
        assert request.execute()["files"] == []
