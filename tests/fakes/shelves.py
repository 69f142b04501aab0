"""What a scripted registry holds: blobs, manifests and tags by repository, served by the specification."""

import dataclasses
import hashlib
import json
from collections.abc import Callable

from fakes.exchange import Ask, Body, Journal, Reply, error
from fakes.redirects import Redirects, serve_range
from fakes.uploads import Uploads
from multidict import CIMultiDict

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MAX_MANIFEST = 4 * 1024 * 1024


def digest_of(data: Body) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclasses.dataclass
class Repository:
    blobs: dict[str, Body] = dataclasses.field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = dataclasses.field(default_factory=dict)
    """Bytes and media type by digest."""
    tags: dict[str, str] = dataclasses.field(default_factory=dict)


class Shelves:
    """Everything below `/v2/<name>/`, without faults and without asking who comes."""

    def __init__(self, journal: Journal, uploads: Uploads, *, referrers: bool = False) -> None:
        self.repositories: dict[str, Repository] = {}
        self.journal = journal
        self.uploads = uploads
        self.redirects: Redirects | None = None
        self._referrers = referrers

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def find_blob(self, digest: str) -> Body | None:
        """In any repository: the second origin does not know them."""
        return next((r.blobs[digest] for r in self.repositories.values() if digest in r.blobs), None)

    def serve(self, ask: Ask, name: str, rest: str) -> Reply:
        """`rest` is the path behind the name: `blobs/sha256:...`, `manifests/v1`, `tags/list` ..."""
        kind, _, what = rest.partition("/")
        if kind == "blobs" and (what == "uploads" or what.startswith("uploads/")):
            return self._upload(ask, name, what.removeprefix("uploads").strip("/"))
        parts: dict[str, Callable[[Ask, str, str], Reply]] = {
            "blobs": self._blob,
            "manifests": self._manifest,
            "tags": self._tags,
            "referrers": self._refer,
        }
        return parts[kind](ask, name, what)

    # -- blobs -----------------------------------------------------------------------------------

    def _blob(self, ask: Ask, name: str, digest: str) -> Reply:
        blobs = self.repository(name).blobs
        if digest not in blobs:
            return error(404, "BLOB_UNKNOWN")
        if ask.method == "DELETE":
            del blobs[digest]
            return Reply(202)
        if ask.method not in {"GET", "HEAD"}:
            return error(405, "UNSUPPORTED")
        if ask.method == "GET" and self.redirects is not None:
            away = self.redirects.send_away(ask, digest)
            if away is not None:
                return away
        return self.blob_reply(ask, digest, blobs[digest])

    def blob_reply(self, ask: Ask, digest: str, data: Body) -> Reply:
        if ask.method == "GET" and ask.headers.get("Accept-Encoding", "identity") != "identity":
            self.journal.violation(
                ask, "Accept-Encoding is not identity: ranges and digests need stored bytes"
            )
        if "Range" in ask.headers and ask.range is None:
            self.journal.violation(ask, f"Range {ask.headers['Range']!r} is no single closed range")
        headers = CIMultiDict(
            {
                "Content-Type": "application/octet-stream",
                "Docker-Content-Digest": digest,
                "ETag": f'"{digest}"',
            }
        )
        if ask.origin == "other":
            del headers["Docker-Content-Digest"]
        return serve_range(ask, data, headers)

    def _upload(self, ask: Ask, name: str, session: str) -> Reply:
        if session:
            found = self.uploads.serve(ask, name, session)
            if isinstance(found, Reply):
                return found
            digest, data = found
            self.repository(name).blobs[digest] = data
            return _created(f"{ask.base}/v2/{name}/blobs/{digest}", digest)
        if ask.method != "POST":
            return error(405, "UNSUPPORTED")
        mount = ask.first("mount")
        if mount:
            answer = self._mount(ask, name, mount, ask.first("from"))
            if answer is not None:
                return answer
        return self.uploads.start(ask, name)

    def _mount(self, ask: Ask, name: str, digest: str, source: str) -> Reply | None:
        wanted = self.uploads.quirks.mount
        if wanted not in {201, 202}:
            return error(wanted, "DENIED")
        blob = self.repositories.get(source, Repository()).blobs.get(digest)
        if wanted == 202 or blob is None:
            return None
        self.repository(name).blobs[digest] = blob
        return _created(f"{ask.base}/v2/{name}/blobs/{digest}", digest)

    # -- manifests -------------------------------------------------------------------------------

    def _manifest(self, ask: Ask, name: str, reference: str) -> Reply:
        repository = self.repository(name)
        if ask.method == "PUT":
            return self._put_manifest(ask, name, reference)
        digest = repository.tags.get(reference, reference)
        if digest not in repository.manifests:
            return error(404, "MANIFEST_UNKNOWN")
        data, media_type = repository.manifests[digest]
        if ask.method == "DELETE":
            del repository.manifests[digest]
            return Reply(202)
        if ask.method not in {"GET", "HEAD"}:
            return error(405, "UNSUPPORTED")
        if media_type not in ",".join(ask.headers.getall("Accept", [])):
            return error(404, "MANIFEST_UNKNOWN", f"Accept does not name {media_type}")
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        return Reply(200, CIMultiDict(headers), data)

    def _put_manifest(self, ask: Ask, name: str, reference: str) -> Reply:
        if len(ask.body) > MAX_MANIFEST:
            return error(400, "MANIFEST_INVALID", "request body too large")
        digest = digest_of(ask.body)
        if ":" in reference and reference != digest:
            return error(400, "DIGEST_INVALID")
        try:
            manifest = json.loads(ask.body)
            wanted = [manifest["config"], *(manifest["layers"] or ())] if "config" in manifest else []
            digests = [descriptor["digest"] for descriptor in wanted]
        except (ValueError, KeyError, TypeError):
            return error(400, "MANIFEST_INVALID")
        media_type = ask.headers.get("Content-Type", "")
        if manifest.get("mediaType", media_type) != media_type:
            return error(400, "MANIFEST_INVALID", "Content-Type is not the mediaType of the manifest")
        missing = [found for found in digests if found not in self.repository(name).blobs]
        if missing:
            return error(400, "MANIFEST_BLOB_UNKNOWN", " ".join(missing))
        self.put_manifest(name, ask.body, media_type, "" if ":" in reference else reference)
        return _created(f"{ask.base}/v2/{name}/manifests/{digest}", digest)

    def put_manifest(self, name: str, data: bytes, media_type: str, tag: str) -> str:
        repository = self.repository(name)
        digest = digest_of(data)
        repository.manifests[digest] = (data, media_type)
        if tag:
            repository.tags[tag] = digest
        return digest

    def _tags(self, ask: Ask, name: str, what: str) -> Reply:
        if name not in self.repositories:
            return error(404, "NAME_UNKNOWN")
        tags = sorted(self.repository(name).tags)
        if ask.first("last"):
            tags = [tag for tag in tags if tag > ask.first("last")]
        headers = CIMultiDict({"Content-Type": "application/json"})
        limit = int(ask.first("n") or len(tags))
        if limit < len(tags):
            tags = tags[:limit]
            headers["Link"] = f'</v2/{name}/tags/list?n={limit}&last={tags[-1]}>; rel="next"'
        return Reply(200, headers, json.dumps({"name": name, "tags": tags}).encode())

    def _refer(self, ask: Ask, name: str, digest: str) -> Reply:
        if not self._referrers:
            return Reply(404, CIMultiDict({"Content-Type": "text/plain"}), b"404 page not found\n")
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
        headers = CIMultiDict({"Content-Type": "application/vnd.oci.image.index.v1+json"})
        return Reply(200, headers, json.dumps(index).encode())


def _created(location: str, digest: str) -> Reply:
    return Reply(201, CIMultiDict({"Location": location, "Docker-Content-Digest": digest}))
