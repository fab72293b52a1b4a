use anyhow::{Result, bail};

use crate::report::Report;

pub(crate) fn run(report: &mut Report, mib: u64) -> Result<()> {
    let (_, _) = (report.dir(), report.form(1, 2));
    report.fault("to come");
    report.skip("all of it", &anyhow::anyhow!("to come"));
    bail!("{mib} to come")
}
