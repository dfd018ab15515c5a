"""The durable record of runs.

Definitions. A *transaction* is one wave, named by a random txid that is never reused. A *record* is one line of the journal. A
transaction is *open* from its `begin` until its `done` or `aborted`, but for a *trial*, which *waits* between `committed` and
`confirmed`.

Invariants, cited by number:

- **J1** A record is durable before the first effect that only it explains: `begin` before anything is staged, `staged` before
  the first flip, `committed` (of a trial: `confirmed`) before the first source is put away, `undo` before the first step back.
- **J2** Whatever a record claims is durable before the record is written: staged copies before `staged`, flips before
  `committed`, trash before `done`.
- **J3** Records are only ever appended. A torn tail is cut: a last line that never was whole, without its end or with whole
  sectors of zeros in it. Any other damage is refused, so no record is cut that may have had an effect.
- **J4** Each record carries the digest of the one before it, so a lost or exchanged line is seen.
- **J5** No decision uses wall-clock time.
- **J6** `done` comes before trash is deleted: a half-deleted trash could not be told from a complete one, so from `done` on it
  is garbage and never read again.
- **J7** `piece` says how far the content of something went over, or came back, after `staged` or `undo`. It is written once that
  content is durable where it went, and before any of it is let go where it came from. It is no state of its own.
"""
