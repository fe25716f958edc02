import type { Command } from 'commander'
import { isLatchkeyError } from '../../errors.ts'
import { isTypeError } from '../../internal/any-realm.ts'
import { migrationSql } from '../../stores/sql/migrations.ts'
import { migrate as migrateStore, type SqlStore } from '../../stores/sql/sql-store.ts'
import type { Act } from '../act.ts'
import { CliError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { firstLine } from '../describe-error.ts'
import { EXIT } from '../exit-codes.ts'
import { parseWord } from '../parse-values.ts'

interface Options {
  readonly print?: string
}

export function addMigrate(program: Command, act: Act): void {
  program
    .command('migrate')
    .description('create the tables of the store, or bring them up to date')
    .option('--print <dialect>', 'print the SQL for postgres, mysql, mariadb or sqlite, and change nothing')
    .action(act(migrate))
}

async function migrate(context: Context, { print }: Options): Promise<number> {
  const { output } = context
  if (print !== undefined) {
    const dialect = parseWord('--print', print, ['postgres', 'mysql', 'mariadb', 'sqlite'])
    await output.write(migrationSql(dialect))
    return EXIT.ok
  }
  const { raw, kind, shown } = await context.openStore(undefined, true)
  if (kind === 'redis') {
    output.remark('A store in Redis has no tables.')
    if (output.isJson) await output.printJson({ applied: [] })
    return EXIT.ok
  }
  const { applied } = await migrateStore(raw as SqlStore).catch(explain)
  if (output.isJson) await output.printJson({ applied })
  else await output.say(describe(applied, shown))
  return EXIT.ok
}

/** What a driver says of a connection is no error of ours. */
function explain(error: unknown): never {
  if (isLatchkeyError(error) || isTypeError(error)) throw error
  throw new CliError(`the store cannot be used: ${firstLine(error)}`, EXIT.unavailable)
}

function describe(applied: readonly string[], shown: string): string {
  if (applied.length === 0) return `${shown} is up to date.`
  return `Migrated ${shown}: ${applied.join(', ')}.`
}
