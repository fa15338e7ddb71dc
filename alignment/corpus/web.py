"""Web crawls: the pages of WARC files, their text extracted by resiliparse, and the text that WET files hold.

A page is a response of HTML or of plain text; images, scripts and the crawler's own records are no documents and are
passed over. Bytes are decoded by what the page says of itself, else by what they look like.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

HTML = ("text/html", "application/xhtml+xml")
TEXT = "text/plain"
LANGUAGE = "WARC-Identified-Content-Language"  # Common Crawl's WET files, ISO 639-3, the most likely first
SHORT = {"eng": "en", "zho": "zh"}  # as the rules for languages call them


def records(stream: IO[bytes], most: int) -> Iterator[dict[str, Any] | str]:
    """Read the pages of a WARC or WET file as rows; a page larger than `most` bytes is a reason instead."""
    wanted = WarcRecordType.response | WarcRecordType.conversion
    for record in ArchiveIterator(stream, record_types=wanted, parse_http=True, auto_decode="all"):
        page = record.record_type == WarcRecordType.response
        form = (record.http_content_type or "") if page else TEXT
        if form not in (*HTML, TEXT):
            continue
        body = record.reader.read(most + 1)
        if len(body) > most:
            yield f"larger than {most:,} bytes"
            continue
        if not page and len(body) < record.content_length:
            raise EOFError("the last record is shorter than its header says")
        yield _row(record, _text(record, body, form) if page else body.decode(errors="replace"))


def _text(record: WarcRecord, body: bytes, form: str) -> str:
    text = bytes_to_str(body, record.http_charset or detect_encoding(body, from_html_meta=True) or "utf-8")
    return str(extract_plain_text(text, main_content=True)) if form in HTML else text


def _row(record: WarcRecord, text: str) -> dict[str, Any]:
    headers = record.headers
    language = (headers.get(LANGUAGE) or "").split(",")[0]
    row = {
        "id": record.record_id,
        "url": headers.get("WARC-Target-URI"),
        "date": headers.get("WARC-Date"),
        "language": SHORT.get(language, language),
    }
    return {"text": text.strip()} | {name: value for name, value in row.items() if value}
