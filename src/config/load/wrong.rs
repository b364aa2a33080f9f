//! A fault of the conf with its position, and values that may have faults.

use toml::Spanned;
use toml::de::DeValue;

/// A fault at a byte of the text.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) message: String,
}

impl Wrong {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Wrong {
        Wrong { at, message: message.into() }
    }
}

pub(super) type Value<'d> = Spanned<DeValue<'d>>;

/// A value, or the faults found in it: phrases that follow the key's name.
pub(super) type Parsed<T> = Result<T, Vec<Wrong>>;

pub(super) fn wrong(value: &Value<'_>, phrase: impl Into<String>) -> Vec<Wrong> {
    vec![Wrong::new(value.span().start, phrase)]
}

pub(super) fn must_be(value: &Value<'_>, what: &str) -> Vec<Wrong> {
    wrong(value, format!("must be {what}, not {}", found(value.get_ref())))
}

/// What the file has there, as an error names it.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(integer) => format!("the integer {integer}"),
        DeValue::Float(float) => format!("the number {float}"),
        DeValue::Boolean(boolean) => format!("the boolean {boolean}"),
        DeValue::Datetime(datetime) => format!("the date {datetime}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

pub(super) fn integer(value: &Value<'_>) -> Option<u64> {
    match value.get_ref() {
        DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        _ => None,
    }
}
