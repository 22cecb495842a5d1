//! Media types of files, by their names.

use hyper::header::HeaderValue;
use mime_guess::mime::{JAVASCRIPT, Mime, TEXT, TEXT_JAVASCRIPT, XML};

/// The media type of a file. Text is UTF-8: whatever is written today is, and a browser that is told nothing guesses.
pub(crate) fn of(name: &str) -> HeaderValue {
    let guessed = mime_guess::from_path(name).first_or_octet_stream();
    // RFC 9239 section 6: the one type for scripts and modules.
    let guessed = if guessed.subtype() == JAVASCRIPT { TEXT_JAVASCRIPT } else { guessed };
    let text = if is_text(&guessed) { format!("{guessed}; charset=utf-8") } else { guessed.to_string() };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// Types that RFC 6838 section 4.2.1 and RFC 7303 give a charset. JSON has none (RFC 8259 section 11).
fn is_text(media_type: &Mime) -> bool {
    media_type.type_() == TEXT || media_type.subtype() == XML || media_type.suffix() == Some(XML)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sites_are_made_of_has_its_type() {
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("feed.xml", "text/xml; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("a.avif", "image/avif"),
            ("a.webp", "image/webp"),
            ("a.PNG", "image/png"),
            ("a.jpeg", "image/jpeg"),
            ("a.ico", "image/x-icon"),
            ("a.pdf", "application/pdf"),
            ("a.mp4", "video/mp4"),
            ("a.tar.gz", "application/gzip"),
            ("LICENSE", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
        ] {
            assert_eq!(of(name), expected, "{name}");
        }
    }
}
