import { describe } from 'vitest'
import { testListings } from '../support/listing-cases.ts'
import { withManyKeys } from '../support/many-keys.ts'

// With a million of them: test/long/sql-explain.test.ts.
describe('listing 50,000 keys in PostgreSQL', () => testListings(withManyKeys(50_000)))
