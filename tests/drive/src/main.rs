//! `drive [scenario]...`: runs hand-made guests through the driver; without arguments, all scenarios but those that take an argument.
#![forbid(unsafe_code)]

mod code;
mod crossing;
mod event;
mod guest;
mod hostile;
mod memory;
mod op;
mod spin;
mod tick;

use anyhow::{Context, Result, bail};
use colinux_driver::Driver;

type Scenario = fn(&Driver) -> Result<()>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("basics", crossing::basics),
    ("fpu", crossing::fpu),
    ("hostile", hostile::all),
    ("irqfd", event::irqfd),
    ("signal", spin::signal),
    ("spin", spin::open),
    ("rescue", spin::closed),
    ("late", spin::late),
    ("smp", event::smp),
    ("memory", memory::all),
    ("lent", memory::lent),
];

fn main() -> Result<()> {
    let driver = Driver::open()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["cost"] => crossing::cost(&driver),
        ["tick"] => tick::cost(&driver),
        ["crossings", count] => crossing::many(&driver, number(count)?),
        ["forever", vcpus] => spin::forever(&driver, number(vcpus)?),
        ["vms", count] => memory::made_and_dropped(&driver, number(count)?),
        ["take", mebibytes] => memory::take(&driver, number(mebibytes)?),
        ["piece", mebibytes] => memory::take_one_piece(&driver, number(mebibytes)?),
        [] => SCENARIOS.iter().try_for_each(|scenario| go(&driver, scenario)),
        _ => words.iter().try_for_each(|word| {
            let known = SCENARIOS.iter().find(|(name, _)| name == word);
            go(&driver, known.with_context(|| format!("there is no scenario {word}"))?)
        }),
    }
}

fn go(driver: &Driver, (name, scenario): &(&str, Scenario)) -> Result<()> {
    if ["rescue", "late"].contains(name) && driver.info().online_cpus < 2 {
        bail!("{name} needs a second CPU in the host");
    }
    scenario(driver).with_context(|| format!("scenario {name}"))?;
    println!("{name}: ok");
    Ok(())
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    word.parse().with_context(|| format!("{word} is no number"))
}
