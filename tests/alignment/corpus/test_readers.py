import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from alignment.corpus import readers
from alignment.corpus.documents import Document
from alignment.corpus.readers import Aside, File
from alignment.errors import DataError, HubError
from tests import fake_hub

TEXT = 'a "quote", 中文, a line\nand another, 🙂'
ROWS = [{"text": TEXT, "lang": "zh", "source": "wiki"}, {"id": 7, "text": "b", "language": "en", "domain": "math"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zst(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return sink.getvalue().to_pybytes()


def write(folder, name, content):
    (folder / name).write_bytes(content)
    return File(name, str(folder / name))


def read(file, **changes):
    return list(readers.read(file, **{"domain": "prose", "language": "und", "dump": "dump", "most": 5000} | changes))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES),
        ("a.jsonl", LINES[:-1]),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("a.jsonl.gz", b"".join(gzip.compress(line) for line in LINES.splitlines(keepends=True))),
        ("a.jsonl.zst", zst(LINES)),
        ("a.jsonl.zst", b"".join(zst(line) for line in LINES.splitlines(keepends=True))),
    ],
)
def test_lines_are_read_alike_however_they_are_packed(tmp_path, name, content):
    assert read(write(tmp_path, name, content)) == [
        Document(f"{name}:1", TEXT, "prose", "zh", "dump", {"source": "wiki"}),
        Document(f"{name}:7", "b", "math", "en", "dump"),
    ]


def test_a_table_and_a_text_file_are_read(tmp_path):
    table = pa.table({"content": ["one", None, "three"], "lang": ["en", "en", None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    one, bad, three = read(File("a.parquet", str(tmp_path / "a.parquet")), text="content")
    assert (one.text, one.language, one.id) == ("one", "en", "a.parquet:1")
    assert bad == Aside("a.parquet", 2, "content is no text", '{"content": null, "lang": "en"}')
    assert (three.text, three.language) == ("three", "und")
    assert [d.text for d in read(write(tmp_path, "a.txt.gz", gzip.compress(TEXT.encode())))] == [TEXT]


BAD = {
    "broken line": (b'{"text": "a', "not JSON"),
    "wrong encoding": ('{"text": "Gr\u00fc\u00dfe"}'.encode("latin-1"), "not UTF-8"),
    "no object": (b"[1, 2]", "not an object"),
    "no field": (b'{"content": "a"}', "no field text"),
    "another type": (b'{"text": 3}', "text is no text"),
    "empty line": (b"", "empty"),
    "empty text": (b'{"text": " \\n"}', "empty"),
    "one character": (b'{"text": "' + b"=" * 300 + b'"}', "one repeated character"),
    "binary": (b'{"text": "PK\\u0003\\u0004\\u0000\\u0000"}', "binary"),
    "half a pair": (b'{"text": "\\ud800"}', "half a surrogate pair"),
    "half a pair beside": (b'{"text": "a", "title": "\\udc00"}', "half a surrogate pair"),
    "gigantic line": (b'{"text": "' + b"a b " * 500_000 + b'"}', "larger than 5,000 bytes"),
    "gigantic text": (b'{"text": "' + b"\\u4e2d" * 1 + "中文".encode() * 850 + b'"}', "larger than 5,000 bytes"),
    "deep": (b"[" * 100_000, "larger than 5,000 bytes"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_is_put_aside_and_reading_goes_on_behind_it(tmp_path, what):
    line, reason = BAD[what]
    before, bad, after = read(write(tmp_path, "a.jsonl", b'{"text": "one"}\n' + line + b'\n{"text": "two"}\n'))
    assert (before.text, after.text, after.id) == ("one", "two", "a.jsonl:3")
    assert (bad.file, bad.row, bad.reason) == ("a.jsonl", 2, reason)
    assert line.startswith(bad.excerpt[:20].encode()) or "\\x" in bad.excerpt or "\\u" in bad.excerpt
    assert len(bad.excerpt) <= 4 * readers.EXCERPT


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_file_that_is_cut_off_gives_what_it_has_and_says_so(tmp_path, name):
    lines = b"".join(json.dumps({"text": f"{number * 7919:x} " * 9}).encode() + b"\n" for number in range(9000))
    if name == "a.parquet":
        rows = pa.table({"text": [json.loads(line)["text"] for line in lines.splitlines()]})
        pyarrow.parquet.write_table(rows, tmp_path / name)
        content = (tmp_path / name).read_bytes()
    else:
        content = gzip.compress(lines) if name.endswith(".gz") else zst(lines)
    *found, last = read(write(tmp_path, name, content[: len(content) // 2]))
    assert last.reason == readers.CUT_OFF
    assert last.row == len(found) + 1
    assert all(isinstance(document, Document) for document in found)
    assert bool(found) == (name != "a.parquet")  # a table is known by its end


def test_a_file_that_is_none_of_its_kind_is_cut_off_and_an_unknown_kind_is_refused(tmp_path):
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.warc"):
        (bad,) = read(write(tmp_path, name, b"plain text, nothing else\n" * 9))
        assert (bad.row, bad.reason) == (1, readers.CUT_OFF)
    for name in ("a.csv", "a.parquet.gz"):
        with pytest.raises(DataError, match="no reader for this kind"):
            read(write(tmp_path, name, b"text"))
    with pytest.raises(DataError, match="is not there any more"):
        read(File("a.txt", str(tmp_path / "none.txt")))


def test_a_file_that_must_be_sound_is_read_whole_or_refused(tmp_path):
    write(tmp_path, "a.jsonl", LINES + b"\n")
    assert [document.text for document in readers.whole(tmp_path / "a.jsonl")] == [TEXT, "b"]
    write(tmp_path, "b.jsonl", LINES + b"{")
    with pytest.raises(DataError, match=r"b\.jsonl, row 3: not JSON"):
        list(readers.whole(tmp_path / "b.jsonl"))


# -- web crawls -------------------------------------------------------------------------------------------------------


def record(kind, body, **headers):
    said = {"WARC-Type": kind, "WARC-Date": "2024-05-01T00:00:00Z", "Content-Length": str(len(body)), **headers}
    said.setdefault("WARC-Record-ID", f"<urn:uuid:{len(body):032x}>")
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + body + b"\r\n\r\n"


def response(body, form):
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: {form}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    headers = {"Content-Type": "application/http; msgtype=response", "WARC-Target-URI": "http://a/b"}
    return record("response", answer, **headers)


PAGE = """<html><head><meta charset="gb2312"><title>t</title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav><main><p>中文网页的正文，第一段。</p><p>A second paragraph.</p></main>
<script>var x = 1;</script></body></html>"""


def test_pages_of_a_crawl_are_text_and_other_records_are_passed_over(tmp_path):
    crawl = [
        record("warcinfo", b"software: none"),
        response(PAGE.encode("gb2312"), "text/html"),
        response(b"\x89PNG", "image/png"),
        response(b"<html><body></body></html>", "text/html"),
        response(b"as it is", "text/plain"),
        response(b"<p>" + b"long " * 2000 + b"</p>", "text/html"),
    ]
    for name, content in (("a.warc", b"".join(crawl)), ("a.warc.gz", b"".join(map(gzip.compress, crawl)))):
        page, empty, plain, large = read(write(tmp_path, name, content))
        assert page.text == "中文网页的正文，第一段。\n\nA second paragraph."
        assert page.meta == {"url": "http://a/b", "date": "2024-05-01T00:00:00Z"}
        assert page.id.startswith(f"{name}:<urn:uuid:")
        assert (empty.reason, plain.text, large.reason) == ("empty", "as it is", "larger than 5,000 bytes")


def test_extracted_text_comes_with_its_language(tmp_path):
    said = {"WARC-Identified-Content-Language": "zho,eng", "WARC-Target-URI": "http://c"}
    content = record("conversion", "一页".encode(), **said)
    (page,) = read(write(tmp_path, "a.warc.wet.gz", gzip.compress(content)))
    assert (page.text, page.language, page.meta["url"]) == ("一页", "zh", "http://c")
    (bad,) = read(write(tmp_path, "a.wet", content[:-6]))
    assert (bad.row, bad.reason) == (1, readers.CUT_OFF)


# -- the hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"text": [f"row {number}" for number in range(300)]}), sink, row_group_size=50)
    files = {"a.jsonl": LINES, "in/a.jsonl.gz": gzip.compress(LINES * 900), "a.parquet": sink.getvalue().to_pybytes()}
    with fake_hub.serve({"datasets/org/toy": files}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield lambda name: File(name, f"org/toy@{fake_hub.COMMIT}/{name}", on_hub=True)


def test_files_are_read_from_the_hub_as_they_come(hub):
    assert [document.text for document in read(hub("a.jsonl"))] == [TEXT, "b"]
    assert len(read(hub("in/a.jsonl.gz"))) == 1800
    assert [document.text for document in read(hub("a.parquet"))] == [f"row {number}" for number in range(300)]


def test_a_hub_that_does_not_answer_stops_the_run_and_is_no_bad_file(hub):
    with pytest.raises(HubError, match="does not answer, or does not know it"):
        read(hub("none.jsonl"))
