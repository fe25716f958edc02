import { expect, it } from 'vitest'
import { createRenewal } from '../../lib/redis/renew-connection.ts'

const READONLY = new Error("READONLY You can't write against a read only replica.")

it('makes a connection anew where a server takes no writes, and at most every five seconds', () => {
  let now = 1_000
  let renewals = 0
  const note = createRenewal(
    () => {
      renewals += 1
    },
    () => now,
  )
  for (let i = 0; i < 100; i++) note(READONLY)
  expect(renewals).toBe(1)
  now += 4_999
  note(READONLY)
  expect(renewals).toBe(1)
  now += 1
  note(new Error('ERR Error running script (call to f_1): @user_script:3: -READONLY You can not write'))
  expect(renewals).toBe(2)
})

it('leaves it alone for any other error', () => {
  const note = createRenewal(
    () => expect.unreachable(),
    () => 0,
  )
  for (const error of [new Error('OOM'), new Error('NOPERM'), new Error('MY_READONLY_KEY'), 'READONLY', null])
    note(error)
})
