//! Whether an image is what its definition says.
//!
//! A short container without network is asked; nothing that the image's labels
//! or names say is believed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::BUILDER_ID;
use super::definition::{Definition, c_prefix};
use super::docker::{Engine, Image};
use super::image::{ImageError, archive::Archive};
use crate::cargo::glibc::GlibcVersion;
use crate::cargo::toolchain::field;

/// Where the container finds what is compiled and run.
const PROBE: &str = "quickbuild/in/cargo/probe";

/// A C program that says where it was compiled, if it can.
const C: &str = "#include <stdio.h>\nconst char *where = __FILE__;\n\
    int main(void) { puts(where); return 0; }\n";
/// The same in C++, with its library.
const CXX: &str = "#include <iostream>\nconst char *where = __FILE__;\n\
    int main() { std::cout << where << std::endl; return 0; }\n";
const RUST: &str = "fn main() { println!(\"runs\"); }\n";

/// What is said of a program that was linked only.
const NOT_RUN: &str = "linked, not run";

/// What every script begins with. `ask` prints a line before each answer, and
/// its status behind it.
const PRELUDE: &str = r#"
probe=/quickbuild/in/cargo/probe
cd /quickbuild/work/target || exit 1
export TMPDIR="$PWD" HOME=/quickbuild/work/home
ask() {
    subject=$1
    shift
    printf '\n@ask %s\n' "$subject"
    "$@" 2>&1
    printf '\n@end %s\n' "$?"
}
# A compiler, a source, and how to start what comes out, or `:`.
compiles() {
    rm -f made.o made
    "$1" -g -c "$2" -o made.o && "$1" -g "$2" -o made || return
    for file in made.o made; do
        ! grep -q /quickbuild "$file" || { echo "$file names the container's paths"; return 1; }
        grep -q /cargo-home/probe "$file" || { echo "$file does not say where it is from"; return 1; }
    done
    "$3" ./made
}
compiles_rust() {
    rm -f made
    rustc "$@" "$probe/probe.rs" -o made
}
runs_rust() {
    compiles_rust && ./made
}
# A way to start what comes out, and how to compile it.
starts_rust() {
    runs=$1
    shift
    compiles_rust "$@" && "$runs" ./made
}
set_user_id() {
    find / -xdev -type f -perm /6000 2>/dev/null
    true
}
interfaces() {
    tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '
}
ask rustc rustc -vV
ask cargo cargo -V
ask user id -u
ask users cut -d: -f1,3 /etc/passwd
ask set-user-id set_user_id
ask network interfaces
ask glibc getconf GNU_LIBC_VERSION
ask cc compiles cc "$probe/probe.c" env
ask c++ compiles c++ "$probe/probe.cc" env
ask rust runs_rust
ask quickbuild "$probe/quickbuild" --version
"#;

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was asked.
    pub subject: String,
    /// Whether the answer is as it should be.
    pub ok: bool,
    /// The answer, or what is wrong with it.
    pub detail: String,
}

/// What one question printed.
#[derive(Debug, PartialEq, Eq)]
struct Answer<'a> {
    subject: &'a str,
    text: String,
    succeeded: bool,
}

/// Asks an image. `program` is the `quickbuild` that has to run in it;
/// `emulators` are QEMU's static programs for the definition's targets, as far as
/// this machine has them, by target: what is compiled for others is not run.
pub fn check(
    engine: &Engine,
    definition: &Definition,
    image: &Image,
    program: &Path,
    emulators: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Finding>, ImageError> {
    let mut files = Archive::new(Arc::default());
    for (folder, owner) in [
        ("", 0),
        ("/in", 0),
        ("/in/cargo", 0),
        ("/in/cargo/probe", 0),
    ] {
        files.folder(&format!("quickbuild{folder}/"), owner)?;
    }
    for folder in ["", "/home", "/target"] {
        files.folder(&format!("quickbuild/work{folder}/"), BUILDER_ID)?;
    }
    for (name, text) in [("probe.c", C), ("probe.cc", CXX), ("probe.rs", RUST)] {
        files.small(&format!("{PROBE}/{name}"), text.into())?;
    }
    files.file(&format!("{PROBE}/quickbuild"), 0o755, program)?;
    for (target, emulator) in emulators {
        files.file(&format!("{PROBE}/run-{target}"), 0o755, emulator)?;
    }
    let script = script(definition, emulators);
    let printed = engine.probe(&image.id, files.finish(), &script)?;
    let mut findings = vec![judge_architecture(definition, image)];
    findings.extend(judge(definition, &script, &printed));
    Ok(findings)
}

/// The emulator that runs a target's programs by itself in any container.
pub fn emulator(target: &str) -> String {
    let processor = target.split('-').next().unwrap_or_default();
    format!("qemu-{processor}-static")
}

/// The questions to an image. Words of a definition need no quoting, as its
/// parser allows letters, digits and dashes only.
fn script(definition: &Definition, emulators: &BTreeMap<String, PathBuf>) -> String {
    let mut script = PRELUDE.to_owned();
    for (number, target) in definition.targets.iter().enumerate() {
        let prefix = c_prefix(target).unwrap_or_default();
        let run = format!("run_{number}");
        let how = match emulators.contains_key(target) {
            true => format!("\"$probe/run-{target}\" -L /usr/{prefix} \"$@\""),
            false => format!("echo \"{NOT_RUN}: no {} here\"", emulator(target)),
        };
        script.push_str(&format!(
            "{run}() {{ {how}; }}\n\
             ask cc-{target} compiles {prefix}-gcc \"$probe/probe.c\" {run}\n\
             ask c++-{target} compiles {prefix}-g++ \"$probe/probe.cc\" {run}\n\
             ask rust-{target} starts_rust {run} --target {target} -C linker={prefix}-gcc\n"
        ));
    }
    script
}

fn judge_architecture(definition: &Definition, image: &Image) -> Finding {
    Finding {
        subject: "architecture".to_owned(),
        ok: image.architecture == definition.architecture,
        detail: image.architecture.clone(),
    }
}

/// Compares what the script printed with the definition. A question without an
/// answer is a finding, too.
fn judge(definition: &Definition, script: &str, printed: &str) -> Vec<Finding> {
    let answers = answers(printed);
    let asked = script.lines().filter_map(|line| line.strip_prefix("ask "));
    let asked = asked.filter_map(|line| line.split(' ').next());
    let finding = |subject: &str| {
        let answer = answers.iter().find(|answer| answer.subject == subject);
        let (ok, detail) = match answer {
            Some(answer) if answer.succeeded => verdict(definition, answer),
            Some(answer) => (false, one_line(&answer.text)),
            None => (false, "no answer".to_owned()),
        };
        Finding {
            subject: subject.to_owned(),
            ok,
            detail,
        }
    };
    asked.map(finding).collect()
}

/// Whether an answer is the right one, and what to say about it.
fn verdict(definition: &Definition, answer: &Answer<'_>) -> (bool, String) {
    let text = answer.text.trim();
    match answer.subject {
        "rustc" => {
            let expected = [
                ("release", Some(&definition.release)),
                ("host", Some(&definition.host)),
                ("commit-date", definition.commit_date.as_ref()),
            ];
            let differs = expected.iter().find_map(|(name, expected)| {
                let found = field(text, name).unwrap_or("absent");
                let expected = expected.filter(|expected| *expected != found)?;
                Some(format!("{name} is {found}, not {expected}"))
            });
            let first = text.lines().next().unwrap_or_default().to_owned();
            (differs.is_none(), differs.unwrap_or(first))
        }
        "glibc" => {
            let version = text.rsplit(' ').next().unwrap_or_default();
            let (ok, floor) = (
                version
                    .parse::<GlibcVersion>()
                    .is_ok_and(|found| found <= definition.glibc),
                definition.glibc,
            );
            let relation = if ok { "not above" } else { "above" };
            (ok, format!("{version}, {relation} the stated {floor}"))
        }
        "user" => (text == BUILDER_ID.to_string(), text.to_owned()),
        "users" => {
            let expected = format!("root:0\nbuilder:{BUILDER_ID}");
            (text == expected, one_line(text))
        }
        "set-user-id" if text.is_empty() => (true, "none".to_owned()),
        "set-user-id" => (false, one_line(text)),
        "network" => (text == "lo", one_line(text)),
        _ if text.is_empty() => (true, "works".to_owned()),
        _ => (true, one_line(text)),
    }
}

/// The last three lines, as one.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// Splits what the script printed into its answers.
fn answers(printed: &str) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in printed.lines() {
        let line = line.trim_end_matches('\r');
        if let Some(subject) = line.strip_prefix("@ask ") {
            open = Some((subject, String::new()));
        } else if let Some(status) = line.strip_prefix("@end ") {
            if let Some((subject, text)) = open.take() {
                answers.push(Answer {
                    subject,
                    text,
                    succeeded: status == "0",
                });
            }
        } else if let Some((_, text)) = &mut open {
            text.push_str(line);
            text.push('\n');
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::image::definitions;
    use crate::builder::{REMAPPED, ROOT};

    const CROSS: &str = "1.96.0-x86_64-unknown-linux-gnu+aarch64";

    fn judged(printed: &str) -> Vec<Finding> {
        let definitions = definitions(None).unwrap();
        let cross = definitions.get(CROSS).unwrap();
        judge(cross, &script(cross, &BTreeMap::new()), printed)
    }

    fn of<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
        findings
            .iter()
            .find(|finding| finding.subject == subject)
            .unwrap()
    }

    #[test]
    fn the_script_replaces_what_the_image_replaces() {
        let (from, to) = REMAPPED[0];
        assert_eq!(format!("/{PROBE}"), format!("{ROOT}/{from}/probe"));
        assert!(PRELUDE.contains(&format!("grep -q {to}/probe")));
        assert!(PRELUDE.contains(&format!("grep -q {ROOT} ")));
    }

    #[test]
    fn programs_for_another_processor_run_where_there_is_an_emulator() {
        let definitions = definitions(None).unwrap();
        let cross = definitions.get(CROSS).unwrap();
        let target = "aarch64-unknown-linux-gnu".to_owned();
        assert_eq!(emulator(&target), "qemu-aarch64-static");
        let without = script(cross, &BTreeMap::new());
        assert!(without.contains("linked, not run: no qemu-aarch64-static here"));
        let with = script(cross, &BTreeMap::from([(target, PathBuf::new())]));
        assert!(!with.contains(NOT_RUN));
        assert!(with.contains(
            "run_0() { \"$probe/run-aarch64-unknown-linux-gnu\" -L /usr/aarch64-linux-gnu \"$@\"; }"
        ));
    }

    #[test]
    fn right_answers_are_findings_without_fault() {
        let printed = "\n@ask rustc\nrustc 1.96.0 (Debian)\nrelease: 1.96.0\nhost: x86_64-unknown-linux-gnu\n\n@end 0\n\
            @ask glibc\nglibc 2.36\n\n@end 0\n@ask users\nroot:0\nbuilder:1000\n\n@end 0\n\
            @ask set-user-id\n\n@end 0\n@ask network\nlo\n\n@end 0\n@ask rust-aarch64-unknown-linux-gnu\n\n@end 0\n";
        let findings = judged(printed);
        for subject in [
            "rustc",
            "glibc",
            "users",
            "set-user-id",
            "network",
            "rust-aarch64-unknown-linux-gnu",
        ] {
            assert!(of(&findings, subject).ok, "{:?}", of(&findings, subject));
        }
        assert_eq!(
            of(&findings, "glibc").detail,
            "2.36, not above the stated 2.36"
        );
        assert_eq!(of(&findings, "cc").detail, "no answer");
        assert!(!of(&findings, "cc").ok);
    }

    #[test]
    fn wrong_answers_say_what_is_wrong() {
        let printed = "@ask rustc\nrelease: 1.85.0\nhost: x86_64-unknown-linux-gnu\n@end 0\n\
            @ask glibc\nglibc 2.41\n@end 0\n@ask users\nroot:0\ndaemon:1\n@end 0\n\
            @ask set-user-id\n/bin/su\n@end 0\n@ask cc\nmade.o names the container's paths\n@end 1\n";
        let findings = judged(printed);
        assert!(findings.iter().all(|finding| !finding.ok));
        assert_eq!(
            of(&findings, "rustc").detail,
            "release is 1.85.0, not 1.96.0"
        );
        assert_eq!(of(&findings, "glibc").detail, "2.41, above the stated 2.36");
        assert_eq!(of(&findings, "set-user-id").detail, "/bin/su");
        assert_eq!(
            of(&findings, "cc").detail,
            "made.o names the container's paths"
        );
    }
}
