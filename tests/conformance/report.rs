//! How clauses are run beside each other, and how their verdicts are told. Knows no clause.

use std::any::Any;
use std::cell::RefCell;
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::clause::{Clause, Skipped};

/// Longest part of a failure's text that the table shows.
const LONGEST: usize = 900;

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

#[derive(Debug)]
enum Verdict {
    Pass,
    Fail(String),
    Skip(String),
}

/// Runs them all, `jobs` at a time; true when none failed.
pub(crate) fn run(clauses: &[Clause], jobs: usize) -> bool {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!("{}:{}: ", at.file(), at.line())).unwrap_or_default();
        let text = format!("{place}{}", words(info.payload()));
        SAID.with_borrow_mut(|said| {
            // The first panic is the reason; one while cleaning up is a consequence.
            if said.is_empty() {
                *said = text;
            }
        });
    }));
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let verdicts: Mutex<Vec<(usize, Verdict, Duration)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((number, clause)) = take(clauses, &next) {
                    let (verdict, took) = judge(clause);
                    tell(clause, &verdict, took);
                    verdicts.lock().expect("no verdict panics").push((number, verdict, took));
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().expect("no verdict panics");
    verdicts.sort_by_key(|(number, ..)| *number);
    summary(clauses, &verdicts, began.elapsed())
}

fn take<'a>(clauses: &'a [Clause], next: &AtomicUsize) -> Option<(usize, &'a Clause)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    clauses.get(number).map(|clause| (number, clause))
}

fn judge(clause: &Clause) -> (Verdict, Duration) {
    let began = Instant::now();
    SAID.with_borrow_mut(String::clear);
    let verdict = match panic::catch_unwind(clause.run) {
        Ok(()) => Verdict::Pass,
        Err(payload) => match payload.downcast::<Skipped>() {
            Ok(skipped) => Verdict::Skip(skipped.0),
            Err(payload) => {
                let said = SAID.with_borrow(Clone::clone);
                Verdict::Fail(if said.is_empty() { words(&*payload) } else { said })
            }
        },
    };
    (verdict, began.elapsed())
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("ended without a word").to_owned()
}

fn tell(clause: &Clause, verdict: &Verdict, took: Duration) {
    let seconds = took.as_secs_f64();
    match verdict {
        Verdict::Pass => println!("{:<34} pass {seconds:>5.1} s  {}", clause.id, clause.says),
        Verdict::Skip(reason) => println!("{:<34} skip {seconds:>5.1} s  {}: {reason}", clause.id, clause.says),
        Verdict::Fail(text) => {
            let short: String = text.chars().take(LONGEST).collect();
            println!("{:<34} FAIL {seconds:>5.1} s  {}\n    {}", clause.id, clause.says, short.replace('\n', "\n    "));
        }
    }
}

fn summary(clauses: &[Clause], verdicts: &[(usize, Verdict, Duration)], took: Duration) -> bool {
    let count = |fits: fn(&Verdict) -> bool| verdicts.iter().filter(|(_, verdict, _)| fits(verdict)).count();
    let failed = count(|verdict| matches!(verdict, Verdict::Fail(_)));
    println!(
        "\n{} clauses: {} pass, {failed} FAIL, {} skip, in {:.0} s",
        verdicts.len(),
        count(|verdict| matches!(verdict, Verdict::Pass)),
        count(|verdict| matches!(verdict, Verdict::Skip(_))),
        took.as_secs_f64()
    );
    for (number, verdict, _) in verdicts {
        if let (Verdict::Fail(text), Some(clause)) = (verdict, clauses.get(*number)) {
            let first = text.lines().next().unwrap_or_default();
            println!("  FAIL {:<32} {}", clause.id, first.chars().take(160).collect::<String>());
        }
    }
    failed == 0
}
