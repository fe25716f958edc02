import { type Accounts, createAccounts } from '../existing-login/accounts.ts'

export interface Person {
  readonly id: string
  readonly username: string
  /** Whether the person works for the service itself and manages all organisations. */
  readonly isStaff: boolean
}

export type People = Accounts<Person>

/** For trying things out. A real application has no password in its source. */
export const DEMO_PASSWORDS = {
  ada: 'analytical-engine',
  joan: 'number-cruncher',
  grace: 'nanosecond-wire',
  linda: 'relational-model',
  margaret: 'guidance-computer',
} as const

export function createDemoPeople(): Promise<People> {
  return createAccounts<Person>(
    [
      { id: 'u_1', username: 'ada', isStaff: false },
      { id: 'u_2', username: 'joan', isStaff: false },
      { id: 'u_3', username: 'grace', isStaff: false },
      { id: 'u_4', username: 'linda', isStaff: false },
      { id: 'u_5', username: 'margaret', isStaff: true },
    ],
    DEMO_PASSWORDS,
  )
}
