//! Input functions as tables of text: times and concentrations under a header that names quantity and unit.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Fluid, InputFunction};
use crate::error::{Error, Result};

/// Longer texts are no input functions.
const LARGEST_BYTES: u64 = 64 << 20;

const HEADER_MEND: &str = "begin with a header that names quantity and unit, such as time_s,plasma_concentration_mM (times in s, \
    min or ms; concentrations in mM or mmol/L)";

/// What a table doesn't say itself.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CsvOptions {
    column: Option<String>,
    fluid: Option<Fluid>,
}

impl CsvOptions {
    /// The only column of concentrations, in the fluid that its name says.
    pub fn new() -> Self {
        Self::default()
    }

    /// The column of concentrations with this name, where there are several.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>) -> Self {
        self.column = Some(name.into());
        self
    }

    /// The fluid, where the column's name doesn't say it (`plasma`, `cp`, `blood` or `cb` in it does).
    #[must_use]
    pub fn fluid(mut self, fluid: Fluid) -> Self {
        self.fluid = Some(fluid);
        self
    }
}

impl InputFunction {
    /// Reads a table: the first line that isn't empty or a comment (`#`) is the header, with one column of times
    /// (`time_s`, `time_min`, `t [s]` …) on the series' clock and at least one of concentrations (`concentration_mM`,
    /// `plasma_concentration_mM`, `cb_mM`, `aif [mmol/L]` …). Columns are separated by commas, semicolons (then with
    /// decimal commas, if you like) or tabs. Other columns are passed over.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] with line, column and value if the header says too little, a field is no finite
    /// number, times don't increase, or neither the column nor the options say whether it is blood or plasma, or they
    /// contradict each other.
    pub fn open(path: impl AsRef<Path>, options: &CsvOptions) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let mut bytes = Vec::new();
        file.take(LARGEST_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
        if bytes.len() as u64 > LARGEST_BYTES {
            return Err(Error::file(
                path,
                "the file",
                "longer than 64 MiB",
                "give a table of times and concentrations",
            ));
        }
        let text = String::from_utf8(bytes);
        let text =
            text.map_err(|_| Error::file(path, "the file", "not UTF-8 text", "save the table as CSV in UTF-8"))?;
        Self::from_csv(&text, path, options)
    }

    /// The same from a text; the path serves for messages and records.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`Error::Io`].
    pub fn from_csv(text: &str, path: &Path, options: &CsvOptions) -> Result<Self> {
        let mut lines = text
            .trim_start_matches('\u{feff}')
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let Some((number, header)) = lines.next() else {
            return Err(Error::file(path, "the file", "without a line of content", HEADER_MEND));
        };
        let table = Table::new(header, number, path, options)?;
        let (mut times, mut concentrations) = (Vec::new(), Vec::new());
        for (number, line) in lines {
            let fields: Vec<&str> = line.split(table.separator).collect();
            if fields.len() != table.names.len() {
                let found = format!("{} field(s) for {} columns", fields.len(), table.names.len());
                let mend = "give every column a field, with a point as decimal mark where commas separate";
                return Err(Error::file(path, format!("line {number}"), found, mend));
            }
            let time = table.number(&fields, table.time, number)? * table.time_unit_s;
            if let Some(last) = times.last().filter(|last| time <= **last) {
                let field = format!("line {number}, column {}", table.column(table.time));
                let value = format!("{:?}, no later than the line before ({last} s)", fields[table.time].trim());
                return Err(Error::file(path, field, value, "sort the lines by time and leave out repeated ones"));
            }
            times.push(time);
            concentrations.push(table.number(&fields, table.concentration, number)?);
        }
        if times.len() < 2 {
            return Err(Error::file(path, "the table", format!("{} line(s) long", times.len()), "give at least two"));
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).display().to_string();
        let origin = format!("column {} of {name}, times on the series' clock", table.names[table.concentration]);
        let function = Self::new(times, concentrations, table.fluid).map_err(|error| match error {
            Error::Time { found, mend, .. } => Error::Time { what: path.display().to_string(), found, mend },
            Error::Setting { name, value, mend } => Error::file(path, name, value, mend),
            other => other,
        })?;
        Ok(function.with_origin(origin))
    }

    /// The function as a table that [`open`](Self::open) reads back exactly: origin and haematocrit as comments, then
    /// `time_s` and `blood_concentration_mM` or `plasma_concentration_mM`.
    pub fn to_csv(&self) -> String {
        let mut text = format!("# input function: {}\n", self.origin().replace(['\n', '\r'], " "));
        if let Some(haematocrit) = self.haematocrit_applied() {
            let fraction = haematocrit.fraction();
            let _ = writeln!(text, "# plasma = blood / (1 - haematocrit), applied once with haematocrit {fraction}");
        }
        let _ = writeln!(text, "time_s,{}_concentration_mM", self.fluid());
        for (time, concentration) in self.times_s().iter().zip(self.concentration_mm()) {
            let _ = writeln!(text, "{time},{concentration}");
        }
        text
    }
}

/// What the header says.
struct Table<'a> {
    path: &'a Path,
    separator: char,
    names: Vec<String>,
    time: usize,
    time_unit_s: f64,
    concentration: usize,
    fluid: Fluid,
}

impl<'a> Table<'a> {
    fn new(header: &str, line: usize, path: &'a Path, options: &CsvOptions) -> Result<Self> {
        let separator = [';', '\t'].into_iter().find(|separator| header.contains(*separator)).unwrap_or(',');
        let names: Vec<String> = header.split(separator).map(|name| unquoted(name).to_string()).collect();
        let field = format!("line {line}, the header,");
        let refuse = |value: String, mend: String| Err(Error::file(path, field.clone(), value, mend));
        let shown = format!("{header:?}");

        let of_time: Vec<usize> = (0..names.len()).filter(|i| is_time(&names[*i])).collect();
        let &[time] = of_time.as_slice() else {
            let found = if of_time.is_empty() { "without a column of times" } else { "with several columns of times" };
            return refuse(format!("{shown}, {found}"), HEADER_MEND.into());
        };
        let Some(time_unit_s) = time_unit_s(&names[time]) else {
            let mend = "name the unit of time: time_s, time_min or time_ms".to_string();
            return refuse(format!("{shown}, with the times {:?} in no known unit", names[time]), mend);
        };
        let known: Vec<usize> = (0..names.len()).filter(|i| is_millimolar(&names[*i])).collect();
        let listed = || known.iter().map(|i| names[*i].as_str()).collect::<Vec<_>>().join(", ");
        let concentration = match (&options.column, known.as_slice()) {
            (_, []) => return refuse(format!("{shown}, without a column in mM"), HEADER_MEND.into()),
            (None, &[only]) => only,
            (None, _) => {
                let mend = format!("say which one is the input function: {}", listed());
                return refuse(format!("with {} columns in mM", known.len()), mend);
            }
            (Some(name), _) => match known.iter().find(|i| names[**i] == *name) {
                Some(index) => *index,
                None => {
                    let mend = format!("the columns in mM are: {}", listed());
                    return refuse(format!("without a column {name:?} in mM"), mend);
                }
            },
        };
        let name = &names[concentration];
        let fluid = match (fluid(name), options.fluid) {
            (Some(said), Some(asked)) if said != asked => {
                let mend = format!("leave out the one that is wrong: the column's name, or {asked} (--aif-in)");
                return refuse(format!("{shown}: {name:?} is in {said}, but {asked} was asked for"), mend);
            }
            (Some(fluid), _) | (None, Some(fluid)) => fluid,
            (None, None) => {
                let mend = "call the column blood_concentration_mM or plasma_concentration_mM, or say it (--aif-in)";
                return refuse(format!("{shown}: whether {name:?} is in blood or plasma is unsaid"), mend.into());
            }
        };
        Ok(Self { path, separator, names, time, time_unit_s, concentration, fluid })
    }

    fn column(&self, index: usize) -> String {
        format!("{} ({})", index + 1, self.names[index])
    }

    fn number(&self, fields: &[&str], index: usize, line: usize) -> Result<f64> {
        let text = unquoted(fields[index]);
        // Where semicolons separate, commas may mark decimals.
        let point = if self.separator == ';' { text.replace(',', ".") } else { text.to_string() };
        match point.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => {
                let field = format!("line {line}, column {}", self.column(index));
                Err(Error::file(self.path, field, format!("{text:?}"), "give a finite number"))
            }
        }
    }
}

fn unquoted(field: &str) -> &str {
    let field = field.trim();
    field.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(field).trim()
}

/// The words of a column's name: `aif_mM [1]` has three.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn is_time(name: &str) -> bool {
    words(name).next().is_some_and(|word| ["time", "t"].contains(&word.to_lowercase().as_str()))
}

fn time_unit_s(name: &str) -> Option<f64> {
    words(name).skip(1).find_map(|word| match word.to_lowercase().as_str() {
        "s" | "sec" | "second" | "seconds" => Some(1.0),
        "min" | "minute" | "minutes" => Some(60.0),
        "ms" | "millisecond" | "milliseconds" => Some(1e-3),
        _ => None,
    })
}

/// Whether a name holds mM (not mm) or mmol and L one after the other.
fn is_millimolar(name: &str) -> bool {
    let words: Vec<&str> = words(name).collect();
    words.contains(&"mM")
        || words.windows(2).any(|pair| pair[0].eq_ignore_ascii_case("mmol") && pair[1].eq_ignore_ascii_case("l"))
}

fn fluid(name: &str) -> Option<Fluid> {
    words(name).find_map(|word| match word.to_lowercase().as_str() {
        "plasma" | "cp" => Some(Fluid::Plasma),
        "blood" | "cb" => Some(Fluid::Blood),
        _ => None,
    })
}
