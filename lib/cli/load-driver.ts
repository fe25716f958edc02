import { createRequire } from 'node:module'
import { join } from 'node:path'
import { messageOf } from '../internal/any-realm.ts'
import { usageError } from './cli-error.ts'
import type { CliIo } from './io.ts'

/**
 * Loads the first of these packages that the application has: drivers are the application's, and found from its folder.
 *
 * @throws CliError saying what to install.
 */
export function loadDriver<T>(
  { cwd }: CliIo,
  purpose: string,
  names: readonly string[],
): { name: string; module: T } {
  const load = createRequire(join(cwd, 'package.json'))
  for (const name of names) {
    try {
      return { name, module: load(name) as T }
    } catch (error) {
      if (!isMissing(error, name)) throw error
    }
  }
  throw usageError(
    `${purpose} needs the package ${names.join(' or ')}, which is not installed in this folder: npm install ${names[0]}`,
  )
}

function isMissing(error: unknown, name: string): boolean {
  const { code } = (error ?? {}) as NodeJS.ErrnoException
  return code === 'MODULE_NOT_FOUND' && messageOf(error).includes(`'${name}'`)
}
