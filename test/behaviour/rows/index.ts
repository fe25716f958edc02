import type { Row } from '../row.ts'
import { CONNECTIONS, METHODS, PROXIES, RENDERING } from './http.ts'
import { CONFUSIONS, GUARDS } from './mark.ts'
import { ADMISSIONS, BAD_KEYS, LIMITS, PERMISSIONS, READING, REFUSALS, REWRITTEN } from './verifying.ts'

export interface Section {
  readonly title: string
  readonly rows: readonly Row[]
}

/** The table. */
export const SECTIONS: readonly Section[] = [
  { title: 'Reading the key', rows: READING },
  { title: 'Header fields that a middleware rewrote', rows: REWRITTEN },
  { title: 'Bad keys', rows: BAD_KEYS },
  { title: 'Other refusals', rows: REFUSALS },
  { title: 'Permissions from the request', rows: PERMISSIONS },
  { title: 'Limits and quotas', rows: LIMITS },
  { title: 'Admissions', rows: ADMISSIONS },
  { title: 'Guards', rows: GUARDS },
  { title: 'Keys, sessions and others', rows: CONFUSIONS },
  { title: 'Refusals rendered by the framework', rows: RENDERING },
  { title: 'Methods', rows: METHODS },
  { title: 'Connections', rows: CONNECTIONS },
  { title: 'Proxies', rows: PROXIES },
]
