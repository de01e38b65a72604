//! Plain kubectl, the installed one and Debian's old one, against the cluster: each case is a command line and literally what it prints.
//!
//! A group is a list of cases run in order in a namespace of its own, once with each version that has the command. `{ns}` stands for the
//! namespace in command lines, manifests and expectations alike.

mod custom;
mod nodes;
mod pods;
mod reading;
mod workloads;
mod writing;

use crate::harness::{Cluster, Namespace, cluster};
use std::io::Write;
use std::process::Stdio;

/// What a command is to print.
enum Expected {
    /// This on standard output, and success.
    Is(&'static str),
    /// All of these on standard output, and success.
    Has(&'static [&'static str]),
    /// This on standard error, and failure.
    Fails(&'static str),
    /// Failure, with this in standard error.
    Refuses(&'static str),
    /// Success, with this warning on standard error.
    Warns(&'static str),
}

/// A command line and what comes of it.
pub struct Case {
    line: &'static str,
    input: &'static str,
    editor: &'static str,
    debian: bool,
    current: bool,
    expected: Expected,
}

fn case(line: &'static str, expected: Expected) -> Case {
    Case { line, input: "", editor: "false", debian: true, current: true, expected }
}

/// Prints exactly this (trailing white space aside).
pub fn is(line: &'static str, text: &'static str) -> Case {
    case(line, Expected::Is(text))
}

/// Prints all of these.
pub fn has(line: &'static str, texts: &'static [&'static str]) -> Case {
    case(line, Expected::Has(texts))
}

/// Succeeds, whatever it prints.
pub fn works(line: &'static str) -> Case {
    has(line, &[])
}

/// Fails, with exactly this as its error.
pub fn fails(line: &'static str, text: &'static str) -> Case {
    case(line, Expected::Fails(text))
}

/// Fails, with this in its error.
pub fn refuses(line: &'static str, text: &'static str) -> Case {
    case(line, Expected::Refuses(text))
}

/// Succeeds with this warning.
pub fn warns(line: &'static str, text: &'static str) -> Case {
    case(line, Expected::Warns(text))
}

impl Case {
    pub fn input(mut self, text: &'static str) -> Self {
        self.input = text;
        self
    }

    /// What `edit` calls.
    pub fn editor(mut self, command: &'static str) -> Self {
        self.editor = command;
        self
    }

    /// Debian's version has no such command, or prints something else.
    pub fn current(mut self) -> Self {
        self.debian = false;
        self
    }

    /// Only Debian's version prints this.
    pub fn debian(mut self) -> Self {
        self.current = false;
        self
    }

    fn run(&self, cluster: &Cluster, namespace: &str, debian: bool) -> Result<(), String> {
        let filled = |text: &str| text.replace("{ns}", namespace);
        let mut words = vec!["-n".to_owned(), namespace.to_owned()];
        words.extend(split(&filled(self.line)));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = cluster.kubectl_command(debian, &words);
        command.env("KUBE_EDITOR", self.editor).env("TERM", "dumb");
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(|e| e.to_string())?;
        let mut stdin = child.stdin.take().ok_or("no standard input")?;
        stdin.write_all(filled(self.input).as_bytes()).map_err(|e| e.to_string())?;
        drop(stdin);
        let out = child.wait_with_output().map_err(|e| e.to_string())?;
        let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        let right = match self.expected {
            Expected::Is(text) => out.status.success() && stdout.trim_end() == filled(text).trim_end(),
            Expected::Has(texts) => out.status.success() && texts.iter().all(|t| stdout.contains(&filled(t))),
            Expected::Fails(text) => !out.status.success() && stderr.trim_end() == filled(text).trim_end(),
            Expected::Refuses(text) => !out.status.success() && stderr.contains(&filled(text)),
            Expected::Warns(text) => out.status.success() && stderr.contains(&filled(text)),
        };
        if right {
            return Ok(());
        }
        let wanted = match self.expected {
            Expected::Is(text) | Expected::Fails(text) | Expected::Refuses(text) | Expected::Warns(text) => {
                text.to_owned()
            }
            Expected::Has(texts) => texts.join("\n"),
        };
        let version = if debian { "1.20" } else { "current" };
        Err(format!(
            "kubectl ({version}) {}: {}\n--- wanted\n{}\n--- output\n{stdout}--- error\n{stderr}",
            words.join(" "),
            out.status,
            filled(&wanted)
        ))
    }
}

/// Words as a shell splits them: single quotes hold a word together.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut open) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, open) = (!quoted, true),
            ' ' if !quoted => {
                if open {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            c => {
                word.push(c);
                open = true;
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}

/// Runs a group with both versions; every case that differs is told, not only the first.
pub fn group(name: &str, cases: &[Case]) {
    let cluster = cluster();
    let mut wrong = Vec::new();
    for debian in [false, true] {
        let namespace: Namespace<'_> =
            cluster.namespace(&format!("kubectl-{name}-{}", if debian { "old" } else { "new" }));
        let due = cases.iter().filter(|case| if debian { case.debian } else { case.current });
        wrong.extend(due.filter_map(|case| case.run(cluster, &namespace.name, debian).err()));
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn words_are_split_as_a_shell_does() {
    assert_eq!(split("get  pods -o 'jsonpath={.a b}' ''"), ["get", "pods", "-o", "jsonpath={.a b}", ""]);
}
