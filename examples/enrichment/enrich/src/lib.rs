//! Adds to each order what is known of its user: a join of a stream with a table.
//!
//! The table comes by an input of its own, to every instance of the operator, and is kept as broadcast state. The two
//! inputs come in any order. So an order whose user is not in the table yet waits, as operator state, until the user
//! comes, or until all inputs have ended.

use regraft_sdk::{
    BroadcastState, Ctx, Declare, Inputs, Operator, OperatorList, Port, Record, Result, State, operator,
};
use serde::{Deserialize, Serialize};

/// A line of an input, of parts with tabs between them.
#[derive(Inputs)]
pub enum Line<'a> {
    /// Order, user, item and price in cents.
    Orders(&'a str),
    /// User, name and city. A later line for a user replaces the earlier one, for orders that come after it.
    Users(&'a str),
}

/// An order.
#[derive(State, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Order {
    /// Its number.
    pub order: u64,
    /// The user who ordered.
    pub user: String,
    /// The article.
    pub item: String,
    /// Its price.
    pub cents: u64,
}

/// A user, as in the table.
#[derive(State, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The user's city.
    pub city: String,
}

/// An order with its user. Of a user that is not in the table, name and city are empty.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Enriched<'a> {
    /// As in [`Order`].
    pub order: u64,
    /// As in [`Order`].
    pub user: &'a str,
    /// As in [`User`].
    pub name: &'a str,
    /// As in [`User`].
    pub city: &'a str,
    /// As in [`Order`].
    pub item: &'a str,
    /// As in [`Order`].
    pub cents: u64,
}

/// The operator.
pub struct Enrich {
    users: BroadcastState<String, User>,
    waiting: OperatorList<Order>,
    out: Port<Enriched<'static>>,
}

#[operator]
impl Operator for Enrich {
    fn declare(d: &mut Declare) -> Self {
        Enrich {
            users: d.broadcast_state("users"),
            waiting: d.list_state("waiting"),
            out: d.output("orders"),
        }
    }

    fn process(&mut self, line: Line<'_>, cx: &mut Ctx) -> Result<()> {
        match line {
            Line::Orders(line) => {
                let [order, user, item, cents] = parts(line)?;
                let order = Order {
                    order: number("order", order)?,
                    user: user.into(),
                    item: item.into(),
                    cents: number("price", cents)?,
                };
                match self.users.get(user) {
                    Some(user) => self.emit(&order, &user, cx),
                    None => self.waiting.push(order),
                }
            }
            Line::Users(line) => {
                let [id, name, city] = parts(line)?;
                let user = User {
                    name: name.into(),
                    city: city.into(),
                };
                let waits = |order: &Order| order.user == id;
                if self.waiting.read(|waiting| waiting.iter().any(waits)) {
                    let (found, waiting): (Vec<_>, Vec<_>) = self.waiting.take().into_iter().partition(waits);
                    self.waiting.set(waiting);
                    for order in found {
                        self.emit(&order, &user, cx);
                    }
                }
                self.users.insert(id.into(), user);
            }
        }
        Ok(())
    }

    fn finish_all(&mut self, cx: &mut Ctx) -> Result<()> {
        for order in self.waiting.take() {
            self.emit(&order, &User::default(), cx);
        }
        Ok(())
    }
}

impl Enrich {
    fn emit(&self, order: &Order, user: &User, cx: &mut Ctx) {
        let enriched = Enriched {
            order: order.order,
            user: &order.user,
            name: &user.name,
            city: &user.city,
            item: &order.item,
            cents: order.cents,
        };
        cx.emit(self.out, &enriched);
    }
}

fn parts<const N: usize>(line: &str) -> Result<[&str; N]> {
    let parts: Vec<&str> = line.split('\t').collect();
    let found = parts.len();
    parts
        .try_into()
        .map_err(|_| format!("a line has {N} parts with tabs between them, this one has {found}").into())
}

fn number(what: &str, text: &str) -> Result<u64> {
    text.parse()
        .map_err(|error| format!("the {what} {text:?}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::{Enrich, Enriched, Order, User};
    use regraft_sdk::testing::{Emitted, Harness, Input};

    fn run(harness: &mut Harness<Enrich>, input: &str, lines: &[&str]) -> Vec<String> {
        shown(&harness.process_input(input, lines.iter().map(Input::value)).unwrap())
    }

    fn shown(emitted: &[Emitted]) -> Vec<String> {
        let shown = |record: &Emitted| {
            let Enriched {
                order,
                user,
                name,
                city,
                item,
                cents,
            } = record.record().unwrap();
            format!("{order} {user} {name} {city} {item} {cents}")
        };
        emitted.iter().map(shown).collect()
    }

    #[test]
    fn orders_wait_for_their_users() {
        let mut harness = Harness::<Enrich>::new();
        assert!(
            run(
                &mut harness,
                "orders",
                &["1\tu1\ttea\t300", "2\tu2\tcup\t900", "3\tu1\tpot\t2500"]
            )
            .is_empty()
        );
        assert_eq!(
            run(&mut harness, "users", &["u3\tCid\tOslo", "u1\tAnn\tRiga"]),
            ["1 u1 Ann Riga tea 300", "3 u1 Ann Riga pot 2500"]
        );
        let mut harness = Harness::<Enrich>::restore(&harness.snapshot()).unwrap();
        assert_eq!(
            run(&mut harness, "orders", &["4\tu3\ttea\t300"]),
            ["4 u3 Cid Oslo tea 300"]
        );
        assert_eq!(run(&mut harness, "users", &["u1\tAnn\tRome"]), [""; 0]);
        assert_eq!(
            run(&mut harness, "orders", &["5\tu1\ttea\t300"]),
            ["5 u1 Ann Rome tea 300"]
        );
        assert_eq!(harness.operator_state::<Order>("waiting").unwrap()[0].order, 2);
        let users = harness.operator_state::<(String, User)>("users").unwrap();
        assert_eq!(
            users.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
            ["u1", "u3"]
        );
        assert_eq!(shown(&harness.finish().unwrap()), ["2 u2   cup 900"]);
        assert!(harness.operator_state::<Order>("waiting").unwrap().is_empty());
    }

    #[test]
    fn the_examples_orders_are_as_expected_whatever_comes_first() {
        let orders: Vec<&str> = [
            include_str!("../../input/orders-a.tsv"),
            include_str!("../../input/orders-b.tsv"),
        ]
        .iter()
        .flat_map(|file| file.lines())
        .collect();
        let users: Vec<&str> = include_str!("../../input/users.tsv").lines().collect();
        let expected: Vec<String> = include_str!("../../expected.tsv")
            .lines()
            .map(|line| line.replace('\t', " "))
            .collect();
        for before in [0, 10, orders.len()] {
            let mut harness = Harness::<Enrich>::new();
            let mut lines = run(&mut harness, "orders", &orders[..before]);
            lines.extend(run(&mut harness, "users", &users));
            lines.extend(run(&mut harness, "orders", &orders[before..]));
            lines.extend(shown(&harness.finish().unwrap()));
            lines.sort();
            assert_eq!(lines.len(), expected.len());
            assert!(expected.iter().all(|line| lines.contains(line)), "{lines:?}");
        }
    }

    #[test]
    fn other_lines_fail_their_record() {
        let fails = |input: &str, line: &str| {
            let failure = Harness::<Enrich>::new()
                .process_input(input, [Input::value(line)])
                .unwrap_err();
            assert_eq!(failure.row, Some(0));
            failure.message
        };
        assert_eq!(
            fails("orders", "1\tu1"),
            "a line has 4 parts with tabs between them, this one has 2"
        );
        assert_eq!(
            fails("orders", "x\tu1\ttea\t3"),
            "the order \"x\": invalid digit found in string"
        );
        assert_eq!(
            fails("orders", "1\tu1\ttea\t-3"),
            "the price \"-3\": invalid digit found in string"
        );
        assert_eq!(
            fails("users", "u1"),
            "a line has 3 parts with tabs between them, this one has 1"
        );
    }
}
