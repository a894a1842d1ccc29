//! Points: the money of the sale.

/// The largest balance: 2^53 − 1, the largest integer that every JSON client reads exactly.
pub const BALANCE_MAX: i64 = (1 << 53) - 1;

/// Why points were not charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeRejected {
    /// The amount is zero or negative.
    NotPositive,
    /// The balance would pass [`BALANCE_MAX`].
    Overflow,
}

/// Decides a charge of `amount` points onto `balance`; returns the new balance.
pub fn decide_charge(balance: i64, amount: i64) -> Result<i64, ChargeRejected> {
    if amount <= 0 {
        return Err(ChargeRejected::NotPositive);
    }
    match balance.checked_add(amount) {
        Some(total) if total <= BALANCE_MAX => Ok(total),
        _ => Err(ChargeRejected::Overflow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charge_table() {
        for (balance, amount, expected) in [
            (0, 1, Ok(1)),
            (5, 10, Ok(15)),
            (0, BALANCE_MAX, Ok(BALANCE_MAX)),
            (0, 0, Err(ChargeRejected::NotPositive)),
            (7, -1, Err(ChargeRejected::NotPositive)),
            (7, i64::MIN, Err(ChargeRejected::NotPositive)),
            (1, BALANCE_MAX, Err(ChargeRejected::Overflow)),
            (BALANCE_MAX, i64::MAX, Err(ChargeRejected::Overflow)),
        ] {
            assert_eq!(decide_charge(balance, amount), expected, "{balance} + {amount}");
        }
    }
}
