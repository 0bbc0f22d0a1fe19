//! What is typed: input for the guest, and orders to us.

/// Begins an order to the daemon: Ctrl-].
const ESCAPE: u8 = 0x1d;

/// What the user wants of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask the guest to power off.
    PowerOff,
    /// Stop at once.
    Quit,
    /// Leave the console, let the guest run.
    Detach,
    /// Say what there is.
    Help,
}

/// Separates orders from input.
#[derive(Default)]
pub struct Keys {
    escaped: bool,
}

/// What the keys do, in a line.
pub const KEYS_HELP: &str =
    "Ctrl-] p: power off, Ctrl-] q: stop at once, Ctrl-] d: detach, Ctrl-] Ctrl-]: send Ctrl-]";

impl Keys {
    /// Takes what was typed: what is for the guest goes to `input`, the orders are returned.
    pub fn type_in(&mut self, typed: &[u8], input: &mut Vec<u8>) -> Vec<Order> {
        let mut orders = Vec::new();
        for byte in typed {
            match (std::mem::take(&mut self.escaped), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'p') => orders.push(Order::PowerOff),
                (true, b'q') => orders.push(Order::Quit),
                (true, b'd') => orders.push(Order::Detach),
                (true, ESCAPE) | (false, _) => input.push(*byte),
                (true, _) => orders.push(Order::Help),
            }
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_taken_out_of_the_input() {
        let mut keys = Keys::default();
        let mut input = Vec::new();
        assert_eq!(keys.type_in(b"ls\x1d", &mut input), []);
        assert_eq!(
            keys.type_in(b"q-\x1d\x1d\x1dx\x1dp.", &mut input),
            [Order::Quit, Order::Help, Order::PowerOff]
        );
        assert_eq!(input, b"ls-\x1d.");
    }
}
