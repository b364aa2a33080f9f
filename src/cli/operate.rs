//! `strowger health`, `reload`, `restart`, `drain`, `log`, `connections`, `trunks` and `stats`: each queries the running server, and prints its
//! answer.

use super::output::{Outcome, complain, print, table};
use super::places::Places;
use std::process::ExitCode;
use std::time::Duration;
use strowger::control::Number;
use strowger::settings::level_named;

/// Succeeds if the server is alive or, with `ready`, ready for new work.
pub fn health(ready: bool, places: &Places) -> Outcome {
    let report = places.connect()?.health()?;
    print(|out| write!(out, "{}", report.text()))?;
    match ready && !report.is_ready() || !report.is_alive() {
        true => Ok(ExitCode::FAILURE),
        false => Ok(ExitCode::SUCCESS),
    }
}

pub fn reload(places: &Places) -> Outcome {
    let changed = places.connect()?.reload()?;
    print(|out| writeln!(out, "{changed}"))
}

pub fn restart(deadline: Option<u32>, places: &Places) -> Outcome {
    let restarted = places.connect()?.restart(deadline)?;
    print(|out| {
        writeln!(
            out,
            "restarted: process {} serves, after a pause of {:.1} ms; process {} still has {} transactions and {} connections, and ends in {} s at the latest",
            restarted.process,
            restarted.pause_ms,
            restarted.predecessor,
            restarted.transactions,
            restarted.connections,
            restarted.deadline_ms.div_ceil(1000)
        )
    })
}

pub fn drain(deadline: Option<u32>, calls: bool, wait: bool, places: &Places) -> Outcome {
    let mut client = places.connect()?;
    let draining = client.drain(deadline, calls)?;
    let calls = draining.calls.map_or_else(String::new, |calls| format!(" and {calls} calls are in progress"));
    print(|out| {
        writeln!(
            out,
            "draining: {} requests wait for their answer{calls}; the server stops in {:.1} s at the latest",
            draining.pending,
            draining.deadline_ms as f64 / 1000.0
        )
    })?;
    // The socket closes when the server stops.
    while wait && client.version().is_ok() {
        std::thread::sleep(DRAIN_LOOK);
    }
    Ok(ExitCode::SUCCESS)
}

/// How often "drain --wait" checks whether the server is still there.
const DRAIN_LOOK: Duration = Duration::from_millis(200);

pub fn log_level(level: Option<&str>, places: &Places) -> Outcome {
    // An invalid level is wrong usage of this command, whether a server runs or not.
    if let Some(name) = level
        && let Err(why) = level_named(name)
    {
        complain(&why);
        return Ok(ExitCode::from(2));
    }
    let mut client = places.connect()?;
    let before = client.log(None)?;
    let now = match level {
        Some(_) => client.log(level)?,
        None => before.clone(),
    };
    print(|out| match level {
        Some(_) => writeln!(out, "{now} (before: {before})"),
        None => writeln!(out, "{now}"),
    })
}

pub fn connections(places: &Places) -> Outcome {
    let entries = places.connect()?.connections()?;
    let head = ["transport", "peer", "listener", "opened by", "state", "quiet", "waiting", "process"];
    let mut rows = vec![head.map(str::to_owned)];
    for entry in entries {
        let opened_by = if entry.outgoing { "us" } else { "peer" };
        rows.push([
            entry.transport,
            entry.peer,
            entry.listener,
            opened_by.to_owned(),
            entry.state,
            format!("{:.1}s", entry.quiet_ms as f64 / 1000.0),
            entry.waiting_bytes.to_string(),
            entry.process.to_string(),
        ]);
    }
    print(|out| table(out, &rows))
}

pub fn trunks(json: bool, places: &Places) -> Outcome {
    let entries = places.connect()?.trunks()?;
    if json {
        return print(|out| {
            serde_json::to_writer_pretty(&mut *out, &entries)?;
            writeln!(out)
        });
    }
    let head = ["trunk", "registrar", "user", "state", "for", "next in", "why"];
    let mut rows = vec![head.map(str::to_owned)];
    for entry in entries {
        rows.push([
            entry.trunk,
            entry.registrar,
            entry.user,
            entry.state,
            format!("{}s", entry.granted_for_s),
            entry.next_in_s.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s")),
            entry.why.unwrap_or_default(),
        ]);
    }
    print(|out| table(out, &rows))
}

pub fn stats(prefix: Option<&str>, json: bool, places: &Places) -> Outcome {
    let prefix = prefix.unwrap_or_default();
    let samples = places.connect()?.stats(prefix)?;
    if samples.is_empty() {
        return Err(format!("no statistics begin with {prefix:?}: \"strowger stats\" prints all of them"));
    }
    print(|out| {
        if json {
            let values: serde_json::Map<String, serde_json::Value> = samples
                .into_iter()
                .map(|sample| match sample.value {
                    Number::Count(count) => (sample.name, count.into()),
                    Number::Real(real) => (sample.name, real.into()),
                })
                .collect();
            serde_json::to_writer_pretty(&mut *out, &values)?;
            return writeln!(out);
        }
        for sample in &samples {
            writeln!(out, "{} {}", sample.name, sample.value)?;
        }
        Ok(())
    })
}
