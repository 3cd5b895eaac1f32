//! Records as CSV (RFC 4180), for spreadsheets.

use serde_json::{Map, Value};

/// What a cell must not begin with: a spreadsheet would take it for a formula, and callers choose identifiers.
const FORMULAS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Objects as rows; each of their fields is a column, in the order of the first that has it.
pub fn of(records: &[Value]) -> anyhow::Result<String> {
    let records: Vec<&Map<String, Value>> = records.iter().filter_map(Value::as_object).collect();
    let mut columns: Vec<&String> = Vec::new();
    for name in records.iter().flat_map(|record| record.keys()) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    if columns.is_empty() {
        return Ok(String::new());
    }
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(&columns)?;
    for record in records {
        writer.write_record(columns.iter().map(|column| cell(record.get(*column))))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if text.starts_with(FORMULAS) => format!("'{text}"),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_are_rows_and_nothing_in_them_is_a_formula() {
        let records = [
            json!({"function": "a", "cu": 0.5, "request": "=1+1"}),
            json!({"function": "b,c", "cu": -1, "instance": null, "request": "say \"hi\""}),
        ];
        // Names of JSON are in the order of the alphabet here.
        let expected = "cu,function,request,instance\n0.5,a,'=1+1,\n-1,\"b,c\",\"say \"\"hi\"\"\",\n";
        assert_eq!(of(&records).unwrap(), expected);
        assert_eq!(of(&[]).unwrap(), "");
    }
}
