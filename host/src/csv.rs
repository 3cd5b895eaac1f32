//! Records as CSV (RFC 4180), for spreadsheets.

use serde::Serialize;
use serde_json::Value;

/// What a cell must not begin with: a spreadsheet would take it for a formula, and callers choose identifiers.
const FORMULAS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A record that is a row.
pub trait Row: Serialize {
    /// The names of all of its fields, in the order in which people read them.
    const COLUMNS: &'static [&'static str];
}

/// The line that says what stands in each column.
pub fn head<R: Row>() -> anyhow::Result<String> {
    lines([R::COLUMNS.iter().map(|column| (*column).to_owned()).collect()])
}

/// A line for each record.
pub fn rows<R: Row>(records: &[R]) -> anyhow::Result<String> {
    let mut rows = Vec::with_capacity(records.len());
    for record in records {
        let record = serde_json::to_value(record)?;
        rows.push(R::COLUMNS.iter().map(|column| cell(&record[*column])).collect());
    }
    lines(rows)
}

fn lines(rows: impl IntoIterator<Item = Vec<String>>) -> anyhow::Result<String> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(FORMULAS) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Record {
        request: &'static str,
        cu: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        end: Option<&'static str>,
    }

    impl Row for Record {
        const COLUMNS: &'static [&'static str] = &["request", "end", "cu"];
    }

    #[test]
    fn records_are_rows_and_nothing_in_them_is_a_formula() {
        let records = [
            Record { request: "=1+1", cu: 0.5, end: None },
            Record { request: "say \"hi\", then", cu: -1.0, end: Some("later") },
        ];
        assert_eq!(rows(&records).unwrap(), "'=1+1,,0.5\n\"say \"\"hi\"\", then\",later,-1.0\n");
        assert_eq!(
            (head::<Record>().unwrap(), rows::<Record>(&[]).unwrap()),
            ("request,end,cu\n".to_owned(), String::new())
        );
    }
}
