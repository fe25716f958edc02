import { type Expression, type SqlBool, sql } from 'kysely'
import type { KeyFilter, ListPage } from '../../../core/keys/key-store.ts'
import type { Owner } from '../../../core/keys/record.ts'
import type { Statement } from '../plan.ts'
import { matchesFilter, NOBODY } from './conditions.ts'
import { padded, roundedUp } from './padding.ts'
import { type Keys, selectKeys, type Tables } from './tables.ts'

/** Statements that list and count keys by a filter. */
export function createListingStatements(tables: Tables) {
  const { dialect, db, keys } = tables
  const select = selectKeys(tables)

  return {
    list(filter: KeyFilter, page: ListPage): Statement {
      const { owners = [] } = filter
      const direction = directionOf(page)
      const selected =
        owners.length > 1
          ? select.innerJoin(placesOf(tables, owners, filter, page).as('place'), 'place.id', 'k.id')
          : select.where((given) => {
              const k = given as unknown as Keys
              return k.and(isOnPage(tables, k, filter, owners, page))
            })
      return selected
        .orderBy('k.created_at_ms', direction)
        .orderBy('k.id', direction)
        .limit(sql.lit(roundedUp(dialect, page.limit)))
        .compile()
    },

    count(filter: KeyFilter): Statement {
      const owners = padded<Owner | typeof NOBODY>(dialect, filter.owners ?? [], NOBODY)
      return db
        .selectFrom(`${keys} as k`)
        .select(sql`count(*)`.as('count'))
        .where((k) => k.and(matchesFilter(k, filter, owners)))
        .compile()
    },
  }
}

/**
 * The positions of the keys on a page of several owners. For each owner, the index yields the keys in order, and the database reads
 * no more of them than the page may need. SQLite accepts an order and a limit inside a union only in a nested select.
 */
function placesOf(tables: Tables, owners: readonly Owner[], filter: KeyFilter, page: ListPage) {
  const { dialect, db, keys } = tables
  const direction = directionOf(page)
  const limit = sql.lit(roundedUp(dialect, page.limit))
  const selects = padded<Owner | typeof NOBODY>(dialect, owners, NOBODY).map((owner) => {
    const own = db
      .selectFrom(`${keys} as k`)
      .select(['k.created_at_ms', 'k.id'])
      .where((k) => k.and(isOnPage(tables, k, filter, [owner], page)))
      .orderBy('k.created_at_ms', direction)
      .orderBy('k.id', direction)
      .limit(limit)
    return db.selectFrom(own.as('own')).selectAll()
  })
  return selects
    .reduce((all, one) => all.unionAll(one))
    .orderBy('created_at_ms', direction)
    .orderBy('id', direction)
    .limit(limit)
}

function isOnPage(
  tables: Tables,
  k: Keys,
  filter: KeyFilter,
  owners: readonly (Owner | typeof NOBODY)[],
  page: ListPage,
): Expression<SqlBool>[] {
  const conditions = matchesFilter(k, filter, owners)
  return page.after ? [...conditions, comesAfter(tables, k, page.after, page.order)] : conditions
}

/**
 * Compares time and id as a pair, so that the database starts at the right place in the index even if thousands of keys have the same
 * time, as after an import. MySQL would read the whole index for a pair, so there the time is also compared alone.
 */
function comesAfter(
  { dialect }: Tables,
  k: Keys,
  after: NonNullable<ListPage['after']>,
  order: ListPage['order'],
): Expression<SqlBool> {
  const { id } = after
  const at = after.createdAt.getTime()
  const compare = order === 'newest' ? '<' : '>'
  if (dialect.name !== 'mysql') {
    return sql<SqlBool>`(k.created_at_ms, k.id) ${sql.raw(compare)} (${at}, ${id})`
  }
  const isFurther = k.or([k('k.created_at_ms', compare, at), k('k.id', compare, id)])
  return k.and([k('k.created_at_ms', `${compare}=`, at), isFurther])
}

function directionOf({ order }: ListPage): 'asc' | 'desc' {
  return order === 'newest' ? 'desc' : 'asc'
}
