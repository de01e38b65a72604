//! Tables as Go's `encoding/csv` reads them: fields with commas, quotes or line ends in them are quoted; empty lines are none.

use anyhow::bail;

/// The records of a table.
pub(super) fn records(text: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let text = text.replace("\r\n", "\n");
    let (mut records, mut rest) = (Vec::new(), text.as_str());
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('\n') {
            rest = after;
            continue;
        }
        let mut record = Vec::new();
        loop {
            let (field, after) = field(rest)?;
            record.push(field);
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('\n').unwrap_or(after);
                    break;
                }
            }
        }
        records.push(record);
    }
    Ok(records)
}

/// The first field, and what comes after it.
fn field(text: &str) -> anyhow::Result<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (field, after) = text.split_at(text.find([',', '\n']).unwrap_or(text.len()));
        if field.contains('"') {
            bail!("parse error: bare \" in non-quoted field");
        }
        return Ok((field.to_owned(), after));
    };
    let (mut field, mut rest) = (String::new(), quoted);
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            bail!("parse error: extraneous or missing \" in quoted-field");
        };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None if after.is_empty() || after.starts_with([',', '\n']) => return Ok((field, after)),
            None => bail!("parse error: extraneous or missing \" in quoted-field"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_hold_what_parts_others() {
        let read = records("a,\"b,\"\"c\"\"\",\r\n\n\"d\ne\"\n").unwrap();
        assert_eq!(read, [vec!["a", "b,\"c\"", ""], vec!["d\ne"]]);
        assert!(records("").unwrap().is_empty());
        for wrong in ["a\"b", "\"a", "\"a\"b"] {
            assert!(records(wrong).is_err(), "{wrong}");
        }
    }
}
