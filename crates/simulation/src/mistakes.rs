//! Mistakes that are planted in scripts, where the simulated server loads them. All others are planted
//! in the code itself.

use boxoffice_backends::simulation::{Bug, planted};

/// What a script says, and what it says with the mistake.
const MISTAKES: &[(Bug, &str, &str)] = &[
    (Bug::NoRunId, "if state[1] ~= run or not gen then", "if not gen then"),
    (Bug::InstallUnchecked, "if ARGV[3] ~= gen then return { 'DROPPED' } end", ""),
    (
        Bug::InstallAnyOrder,
        "if first <= q.limit then return { 'DROPPED' } end\nif first > q.limit + 1 then \
         q.next = math.max(q.next, first - 1) end",
        "q.next = first - 1",
    ),
    (Bug::JoinPastLimit, "local given = q.next + count <= q.limit", "local given = q.limit > 0"),
    (Bug::JoinBelowKnown, "q.next = math.max(q.next, tonumber(ARGV[4]))", ""),
];

/// A script as the server reads it: as it is, but for a mistake that is switched on.
pub(crate) fn misread(script: &str) -> String {
    let planted = MISTAKES.iter().filter(|(bug, ..)| planted(*bug));
    planted.fold(script.to_owned(), |script, (_, right, wrong)| script.replace(right, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_say_what_is_misread() {
        let scripts = concat!(
            include_str!("../../backends/src/sequencer/redis/state.lua"),
            include_str!("../../backends/src/sequencer/redis/join.lua"),
            include_str!("../../backends/src/sequencer/redis/install.lua"),
        );
        for (bug, right, _) in MISTAKES {
            assert_eq!(scripts.matches(right).count(), 1, "{bug:?}");
        }
    }
}
