//! Tables for people: columns as wide as their widest entry.

/// The rows under their headings, each on a line. Entries are to be one line each.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let entries = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
        let all = entries.chain(headings.get(column).copied());
        all.map(|entry| entry.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..headings.len()).map(width).collect();
    let line = |entries: &mut dyn Iterator<Item = &str>| {
        let cells = entries.zip(&widths).map(|(entry, width)| format!("{entry:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&mut headings.iter().copied());
    text.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let rows = [
            vec!["a".to_owned(), "one".to_owned()],
            vec!["bcdé".to_owned(), String::new()],
        ];
        assert_eq!(table(&["N", "WHY"], &rows), "N     WHY\na     one\nbcdé\n");
        assert_eq!(table(&["N", "WHY"], &[]), "N  WHY\n");
    }
}
