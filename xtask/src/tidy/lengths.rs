//! How long files and functions may get.

use super::Finding;
use super::checkout::Text;

/// Lines of a source file. People pause at 400; this is where it stops.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from its signature to its closing brace. People pause at 50.
const FUNCTION_LINES_MAX: usize = 70;

const SOURCES: [&str; 3] = ["rs", "c", "h"];

pub(super) fn check(text: &Text) -> Vec<Finding> {
    let mut findings = Vec::new();
    if text.has_extension(&SOURCES) {
        findings.extend(check_file(text));
    }
    if text.has_extension(&["rs"]) {
        findings.extend(functions_of(&text.content).into_iter().filter_map(|function| {
            let message = format!(
                "`{}` has {} lines; {FUNCTION_LINES_MAX} are the limit",
                function.name, function.lines
            );
            let too_long = function.lines > FUNCTION_LINES_MAX;
            too_long.then(|| Finding { file: text.file.clone(), line: function.line, message })
        }));
    }
    findings
}

fn check_file(text: &Text) -> Option<Finding> {
    let lines = text.content.lines().count();
    let message = format!("the file has {lines} lines; {FILE_LINES_MAX} are the limit");
    (lines > FILE_LINES_MAX).then(|| Finding { file: text.file.clone(), line: FILE_LINES_MAX + 1, message })
}

#[derive(Debug, PartialEq, Eq)]
struct Function<'a> {
    name: &'a str,
    /// Counted from one.
    line: usize,
    /// With signature and closing brace.
    lines: usize,
}

/// Functions by their layout: rustfmt puts the closing brace of what begins at one indentation back to it.
fn functions_of(source: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = source.lines().collect();
    let mut functions = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = name_of_function(line) else { continue };
        let indentation = indentation_of(line);
        let ends = |line: &&str| indentation_of(line) == indentation && ends_function(line.trim_start());
        let Some(behind) = lines[at..].iter().position(ends) else { continue };
        functions.push(Function { name, line: at + 1, lines: behind + 1 });
    }
    functions
}

/// The name of the function whose signature begins on this line.
fn name_of_function(line: &str) -> Option<&str> {
    let mut words = line.trim_start().split(' ');
    let is_qualifier = |word: &str| {
        matches!(word, "const" | "async" | "unsafe" | "extern")
            || word.starts_with("pub")
            || word.starts_with('"')
    };
    let keyword = words.find(|word| !is_qualifier(word))?;
    if keyword != "fn" {
        return None;
    }
    let rest = words.next()?;
    rest.split(['(', '<']).next()
}

/// A lone brace; or a signature that ends on the line where it began, with its body or, in a trait, without one.
fn ends_function(code: &str) -> bool {
    let whole_on_one_line = code.contains("fn ") && (code.ends_with('}') || code.ends_with(';'));
    code == "}" || code.starts_with(") ") && code.ends_with(';') || code == ");" || whole_on_one_line
}

fn indentation_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function_of(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
    }

    fn messages(file: &str, content: &str) -> Vec<String> {
        let text = Text { file: file.into(), content: content.to_owned() };
        check(&text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_function_may_reach_the_limit_and_not_pass_it() {
        assert!(messages("a.rs", &function_of(70)).is_empty());
        assert_eq!(messages("a.rs", &function_of(71)), ["a.rs:1: `long` has 71 lines; 70 are the limit"]);
    }

    #[test]
    fn a_file_may_reach_the_limit_and_not_pass_it() {
        assert!(messages("a.h", &"x\n".repeat(600)).is_empty());
        assert_eq!(
            messages("a.h", &"x\n".repeat(601)),
            ["a.h:601: the file has 601 lines; 600 are the limit"]
        );
        assert!(messages("a.md", &"x\n".repeat(601)).is_empty());
    }

    #[test]
    fn functions_are_found_whatever_qualifies_them() {
        let source = "\
trait Shape {
    fn area(&self) -> u32;
    fn name(
        &self,
    ) -> String;
}
impl Shape {
    pub(crate) const fn one() {}
    pub async fn two<T>(
        of: T,
    ) {
        if true {
        }
    }
    unsafe extern \"C\" fn three() {
    }
}
// The function fn is none.
";
        let found: Vec<_> =
            functions_of(source).iter().map(|found| (found.name, found.line, found.lines)).collect();

        assert_eq!(found, [("area", 2, 1), ("name", 3, 3), ("one", 8, 1), ("two", 9, 6), ("three", 15, 2)]);
    }
}
