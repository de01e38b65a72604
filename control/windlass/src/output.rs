//! What commands print: columns for people, JSON for scripts. A closed pipe is the reader's choice, not an error.

use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, ErrorKind, Write as _};

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// Prints `text`, or `data` as JSON.
pub(crate) fn print(form: Output, text: &str, data: &impl Serialize) -> anyhow::Result<()> {
    let all = match form {
        Output::Text => text.to_owned(),
        Output::Json => serde_json::to_string_pretty(data)? + "\n",
    };
    match io::stdout().write_all(all.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Rows under a heading, columns three spaces apart.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let line: String = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}   ", width = *width))
            .collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["ID".to_owned(), "TTL".to_owned()], vec!["abcdef".to_owned(), "1h".to_owned()]];
        assert_eq!(table(&rows), "ID       TTL\nabcdef   1h\n");
    }
}
