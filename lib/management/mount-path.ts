import { OptionError } from '../internal/option-error.ts'
import { checkText } from '../internal/options.ts'

/** The path without a trailing slash. @throws TypeError */
export function checkMountPath(value: unknown): string {
  const path = checkText('path', value, 1_000)
  if (!path.startsWith('/')) throw new OptionError('path', 'begin with "/"')
  return path.replace(/\/+$/, '')
}

/** A path below this one, relative to it; null for any other. */
export function relativeTo(mount: string, path: string): string | null {
  if (path === mount) return '/'
  return path.startsWith(`${mount}/`) ? path.slice(mount.length) : null
}
