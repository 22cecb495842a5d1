//! Words that must not stay behind: promises of later work, and paths of somebody's machine.

use super::Finding;
use super::checkout::Text;

/// Something is unfinished. Written in halves, so that this file may pass.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("unimplemented", "!"),
    concat!("todo", "!"),
];

/// Directories that exist on one machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

pub(super) fn check(text: &Text) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text.content.lines().enumerate() {
        let unfinished = UNFINISHED.iter().filter(|word| contains_word(line, word));
        let unfinished = unfinished.map(|word| format!("`{word}`: finish it, or file an issue"));
        let paths = MACHINE_PATHS.iter().filter(|path| contains_path(line, path));
        let paths = paths.map(|path| format!("`{path}` is a path of one machine"));
        findings.extend(unfinished.chain(paths).map(|message| Finding {
            file: text.file.clone(),
            line: at + 1,
            message,
        }));
    }
    findings
}

/// True where `word` stands by itself, so that `XXXX` and `todos` may be written.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part_of_word) && (word.ends_with('!') || !after.is_some_and(is_part_of_word))
    })
}

/// True where `path` begins at the root; the path of an URL may have the same name.
fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before
            .is_some_and(|character| is_part_of_word(character) || matches!(character, '.' | '-' | '~' | '}'))
    })
}

fn is_part_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(content: &str) -> Vec<String> {
        let text = Text { file: "a.rs".into(), content: content.to_owned() };
        check(&text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unfinished_work_is_found_where_it_stands() {
        for word in UNFINISHED {
            let content = format!("let a = 1;\n// {word} later\n");
            assert_eq!(messages(&content), [format!("a.rs:2: `{word}`: finish it, or file an issue")]);
        }
    }

    #[test]
    fn words_within_words_are_others() {
        assert!(messages("mktemp -d /tmp/XXXXXX; todos; AUTODONE").is_empty());
    }

    #[test]
    fn paths_of_machines_are_found_and_urls_are_not() {
        let path = MACHINE_PATHS[0];

        assert_eq!(
            messages(&format!("cd {path}dpr")),
            [format!("a.rs:1: `{path}` is a path of one machine")]
        );
        assert!(messages(&format!("https://example.net{path}dpr")).is_empty());
        assert!(messages("network/ and /workshop").is_empty());
    }
}
