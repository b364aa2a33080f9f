//! Several generators at once, where the descriptors or the core of one do not suffice: processes of this program with a share each of the load, the
//! users and the local addresses, that begin each load together. Their results are merged into one.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::stats::Stats;

/// Which of how many processes this one is: `0/4` is the first of four.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    pub index: u32,
    pub of: u32,
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Share, &'static str> {
        let (index, of) = text.split_once('/').ok_or("not index/number")?;
        let read = |text: &str| text.parse().map_err(|_| "not a number");
        let (index, of) = (read(index)?, read(of)?);
        match index < of {
            true => Ok(Share { index, of }),
            false => Err("no such share"),
        }
    }
}

impl Share {
    /// This one's part of a number; the first ones have what does not divide.
    pub fn of(self, number: u64) -> u64 {
        let (index, of) = (u64::from(self.index), u64::from(self.of));
        number / of + u64::from(index < number % of)
    }

    /// Its part of a row of things: from here, so many.
    pub fn range(self, number: u32) -> (u32, u32) {
        let before = (0..self.index).map(|index| Share { index, ..self }.of(u64::from(number)));
        (before.sum::<u64>() as u32, self.of(u64::from(number)) as u32)
    }

    /// Waits until all are here.
    pub fn meet(self) -> Result<(), String> {
        println!("{READY}");
        let mut line = String::new();
        match io::stdin().read_line(&mut line) {
            Ok(1..) => Ok(()),
            _ => Err("whoever started this process has gone".into()),
        }
    }
}

const READY: &str = "ready";

struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended by itself, unless another of them failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs this program so many times, with its own arguments and a share. Returns the merged results.
pub fn run(processes: u32) -> Result<Vec<Value>, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut workers = Vec::new();
    for index in 0..processes {
        let mut child = Command::new(&program)
            .args(env::args_os().skip(1))
            .args(["--share", &format!("{index}/{processes}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("process {index}: {error}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".into());
        };
        workers.push(Worker { child, input, output: BufReader::new(output) });
    }
    loop {
        // All of them say the same: that they are ready for the next load, or what came of all.
        let mut said = Vec::new();
        for (index, worker) in workers.iter_mut().enumerate() {
            let mut line = String::new();
            match worker.output.read_line(&mut line) {
                Ok(1..) => said.push(line),
                _ => return Err(format!("process {index} has failed")),
            }
        }
        if said.iter().any(|line| line.trim_end() != READY) {
            return merge(&said);
        }
        for worker in &mut workers {
            let _ = worker.input.write_all(b"go\n");
        }
    }
}

fn merge(said: &[String]) -> Result<Vec<Value>, String> {
    let results: Vec<Vec<Value>> = said
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("a process's results: {error}"))?;
    let loads = results.iter().map(Vec::len).min().unwrap_or(0);
    Ok((0..loads)
        .map(|at| {
            let each: Vec<&Value> = results.iter().map(|one| &one[at]).collect();
            merge_one(&each)
        })
        .collect())
}

/// What is added up.
const SUMS: [&str; 13] = [
    "scheduled_per_second",
    "completed_per_second",
    "goodput_per_second",
    "good",
    "generator_drops",
    "generator_cpu_user_s",
    "generator_cpu_system_s",
    "outstanding_at_end",
    "unanswered_after_drain",
    "connections_open",
    "rate_or_window",
    "counts",
    "drain_counts",
];
/// Of what the worst is told.
const WORST: [&str; 3] = ["generator_busy", "generator_waited", "drain_seconds"];
/// What is per call, and so weighs as much as the calls.
const MEANS: [&str; 3] = ["generator_us_each", "bytes_in_each", "bytes_out_each"];

/// One result of the same load in each process. All watch the same server, in the same time: its account is the first one's.
fn merge_one(each: &[&Value]) -> Value {
    let mut merged = each[0].clone();
    for name in SUMS {
        if !merged[name].is_null() {
            merged[name] = each.iter().fold(Value::Null, |sum, one| add(&sum, &one[name]));
        }
    }
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    for name in WORST {
        let worst = each.iter().map(|one| number(&one[name])).fold(0.0, f64::max);
        merged[name] = json!(worst);
    }
    let completed = |one: &Value| number(&one["counts"]["completed"]);
    let all: f64 = each.iter().map(|one| completed(one)).sum();
    for name in MEANS {
        let sum: f64 = each.iter().map(|one| number(&one[name]) * completed(one)).sum();
        merged[name] = json!(sum / all.max(1.0));
    }
    if let Some(busy) = merged["server_busy"].as_f64() {
        let seconds = number(&merged["seconds"]);
        merged["server_cpu_us_each"] = json!(busy * seconds * 1e6 / all.max(1.0));
    }
    let scheduled = number(&merged["counts"]["scheduled"]);
    merged["failed_share"] = json!(1.0 - number(&merged["good"]) / scheduled.max(1.0));
    let any = |name: &str| each.iter().any(|one| one[name] == json!(true));
    let because: Vec<String> = each
        .iter()
        .enumerate()
        .filter_map(|(index, one)| {
            let because = one["generator_bound_because"].as_str()?;
            Some(format!("process {index}: {because}"))
        })
        .collect();
    merged["generator_bound"] = json!(any("generator_bound"));
    merged["generator_bound_because"] = match because.is_empty() {
        true => Value::Null,
        false => json!(because.join("; ")),
    };
    merged["disturbed"] = json!(any("disturbed"));
    merged["clean"] = json!(each.iter().all(|one| one["clean"] == json!(true)));
    let mut stats = Stats::new();
    for one in each {
        stats.add_recorded(&one["histograms"]);
    }
    merged["latency_us"] = stats.spans_json();
    if let Some(fields) = merged.as_object_mut() {
        fields.remove("histograms");
    }
    merged["processes"] = json!(each.len());
    merged
}

/// Numbers, and numbers by name.
fn add(sum: &Value, more: &Value) -> Value {
    match (sum, more) {
        (Value::Null, more) => more.clone(),
        (Value::Object(sum), Value::Object(more)) => {
            let fields = sum.iter().map(|(name, value)| (name.clone(), add(value, &more[name])));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        (sum, more) => match (sum.as_u64(), more.as_u64()) {
            (Some(sum), Some(more)) => json!(sum + more),
            _ => json!(sum.as_f64().unwrap_or_default() + more.as_f64().unwrap_or_default()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Span;

    #[test]
    fn shares_are_the_whole_and_do_not_overlap() {
        for (number, of) in [(10_000, 3), (48, 5), (7, 7)] {
            let mut next = 0;
            for index in 0..of {
                let (first, count) = Share { index, of }.range(number);
                assert_eq!(first, next);
                next += count;
            }
            assert_eq!(next, number);
        }
        assert_eq!("1/4".parse(), Ok(Share { index: 1, of: 4 }));
        for bad in ["4/4", "1", "x/2", "0/0"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    fn result(spans: &[u64], good: u64, busy: f64) -> Value {
        let mut stats = Stats::new();
        for ns in spans {
            stats.record(Span::ToOk, *ns);
        }
        json!({
            "seconds": 10.0,
            "rate_or_window": 500.0,
            "completed_per_second": 100.0,
            "good": good,
            "counts": {"scheduled": 1_000, "completed": 1_000, "late": 2},
            "server_busy": 0.2,
            "generator_busy": busy,
            "generator_us_each": busy * 100.0,
            "generator_bound": busy > 0.95,
            "generator_bound_because": (busy > 0.95).then_some("it was busy"),
            "disturbed": false,
            "clean": good == 1_000,
            "histograms": stats.recorded(),
        })
    }

    #[test]
    fn results_are_added_up_and_the_server_counts_once() {
        let (first, second) = (result(&[1_000], 1_000, 0.3), result(&[2_000], 900, 0.97));
        let merged = merge_one(&[&first, &second]);
        assert_eq!(merged["rate_or_window"], 1_000.0);
        assert_eq!(merged["counts"]["scheduled"], 2_000);
        assert_eq!(merged["counts"]["late"], 4);
        assert_eq!(merged["failed_share"], json!(1.0 - 1_900.0 / 2_000.0));
        // 2 s of the server's time for 2,000 calls.
        assert_eq!(merged["server_cpu_us_each"], 1_000.0);
        assert_eq!(merged["generator_busy"], 0.97);
        assert_eq!(merged["generator_us_each"], 63.5);
        assert_eq!(merged["clean"], false);
        assert_eq!(merged["generator_bound_because"], "process 1: it was busy");
        assert_eq!(merged["processes"], 2);
    }

    #[test]
    fn merged_histograms_are_those_of_all_values() {
        let values: Vec<u64> = (1..5_000).map(|number| number * number * 31).collect();
        let (left, right) = values.split_at(1_234);
        let (first, second) = (result(left, 1_000, 0.1), result(right, 1_000, 0.1));
        let merged = merge_one(&[&first, &second]);
        let mut whole = Stats::new();
        for ns in &values {
            whole.record(Span::ToOk, *ns);
        }
        assert_eq!(merged["latency_us"], whole.spans_json());
        assert_eq!(merged["histograms"], Value::Null);
    }
}
