import { randomBytes } from 'node:crypto'
import { access, type FileHandle, open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { CliError, usageError } from '../cli-error.ts'
import { firstLine } from '../describe-error.ts'

/** Where an export goes. */
export interface Sink {
  write(text: string): Promise<void>
  /** Makes everything last. */
  finish(): Promise<void>
  /** Leaves nothing behind. */
  discard(): Promise<void>
}

/**
 * A file that appears when it is complete and on disk, and that only its owner may read.
 *
 * @throws CliError if there is a file of this name, unless `mayReplace`.
 */
export async function createFileSink(file: string, mayReplace: boolean): Promise<Sink> {
  if (!mayReplace && (await exists(file))) throw usageError(`${basename(file)} exists: --force replaces it`)
  const unfinished = join(dirname(file), `.${basename(file)}.${randomBytes(6).toString('hex')}.tmp`)
  const handle = await explain(file, () => open(unfinished, 'wx', 0o600))
  const discard = async () => {
    await handle.close().catch(() => {})
    await rm(unfinished, { force: true })
  }
  return {
    write: (text) => explain(file, async () => void (await handle.appendFile(text))),
    finish: () =>
      explain(file, async () => {
        await handle.sync()
        await handle.close()
        await rename(unfinished, file)
        await syncFolder(dirname(file))
      }),
    discard,
  }
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  )
}

/** Without it, a crash of the machine could lose the new name of the file. Not every system can. */
async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined
  try {
    handle = await open(folder, 'r')
    await handle.sync()
  } catch {
    // The content is on disk all the same.
  } finally {
    await handle?.close()
  }
}

async function explain<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw new CliError(`${basename(file)} cannot be written: ${firstLine(error)}`)
  }
}
