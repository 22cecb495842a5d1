//! Which files are looked at: every text that people write.

use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A file and what is in it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// From the root of the checkout.
    pub(super) file: PathBuf,
    pub(super) content: String,
}

impl Text {
    pub(super) fn has_extension(&self, extensions: &[&str]) -> bool {
        self.file.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted))
    }
}

/// Directories with nothing in them that people write, wherever they are.
const SKIPPED: [&str; 3] = [".git", "target", "node_modules"];

/// Every text below `root`, in order of its path; what is not UTF-8 is no text.
pub(super) fn texts(root: &Path) -> anyhow::Result<Vec<Text>> {
    let mut texts = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in directory.read_dir().with_context(|| format!("reading {}", directory.display()))? {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                directories.push(path);
            } else if kind.is_file() {
                let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                let Ok(content) = String::from_utf8(content) else { continue };
                let file = path.strip_prefix(root).unwrap_or(&path).to_owned();
                texts.push(Text { file, content });
            }
        }
    }
    texts.sort_by(|left, right| left.file.cmp(&right.file));
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_products_and_bytes_are_no_texts() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["src", "target", ".ci"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        for file in ["src/main.rs", "target/main.rs", ".ci/run"] {
            fs::write(root.path().join(file), "text").unwrap();
        }
        fs::write(root.path().join("src/object.o"), [0xff, 0xfe]).unwrap();

        let texts = texts(root.path()).unwrap();

        let files: Vec<_> = texts.iter().map(|text| text.file.to_str().unwrap()).collect();
        assert_eq!(files, [".ci/run", "src/main.rs"]);
    }
}
