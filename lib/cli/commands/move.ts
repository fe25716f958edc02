import type { Command } from 'commander'
import { schemeOf } from '../../core/digests/digest.ts'
import type { KeyStore } from '../../core/keys/key-store.ts'
import type { Act } from '../act.ts'
import { CliError, refuseInterrupted, usageError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import type { OpenStore } from '../open-store.ts'
import { startProgress } from '../progress.ts'
import { type CopyCounts, KeyCopy } from '../transfer/copy-keys.ts'
import { pagesOf } from '../transfer/pages.ts'

interface Options {
  readonly to: string
}

/** So many keys are named one by one. */
const MAX_NAMED = 20

export function addMove(program: Command, act: Act): void {
  program
    .command('move')
    .description('copy all keys to another store, or bring it up to date; can be repeated at any time')
    .requiredOption('--to <name>', 'the other store: its name in "stores" of the configuration, or env:NAME')
    .action(act(move))
}

async function move(context: Context, { to }: Options): Promise<number> {
  const { output } = context
  const source = await context.openStore()
  const target = await context.openStore(to)
  refuseSame(source, target)
  // Report an unreachable or unmigrated store before reading anything.
  await target.store.list({}, { limit: 1 })
  const counts = await copyStore(context, source.store, target.store)
  const isComplete = counts.different + counts.newer + counts.extra === 0
  if (output.isJson) await output.printJson({ ...counts, complete: isComplete })
  else await output.say(describe(counts, isComplete))
  return isComplete ? EXIT.ok : EXIT.failed
}

function refuseSame(source: OpenStore, target: OpenStore): void {
  const isSame = source.raw === target.raw || (source.kind !== 'given' && source.shown === target.shown)
  if (isSame) throw usageError('both are the same store')
}

async function copyStore(context: Context, source: KeyStore, target: KeyStore): Promise<CopyCounts> {
  const { io, output } = context
  let named = 0
  const progress = startProgress(io, output, 'Moving', (await source.count?.({})) ?? null)
  const copy = new KeyCopy(target, {
    isWholeStore: true,
    onProblem(id, what) {
      named += 1
      if (named <= MAX_NAMED) output.note(`${id}: ${PROBLEMS[what]}`)
    },
    onProgress: progress.update,
  })
  try {
    const peppers = new Set<string>()
    for await (const page of pagesOf(source, {})) {
      refuseInterrupted(io.signal)
      for (const { digest } of page) {
        const { pepper } = schemeOf(digest)
        if (pepper !== null && !peppers.has(pepper)) await copyAgreement(source, target, `pepper:${pepper}`)
        if (pepper !== null) peppers.add(pepper)
      }
      await copy.add(page)
    }
    await copy.finish()
    for (const name of ['rateLimiter', 'invalidation']) await copyAgreement(source, target, name)
  } finally {
    progress.end()
  }
  if (named > MAX_NAMED) output.note(`and ${named - MAX_NAMED} more`)
  return copy.counts
}

const PROBLEMS: Readonly<Record<string, string>> = {
  older: 'older in the other store',
  newer: 'newer in the other store, and left alone',
  different: 'differs in the other store, and was left alone',
  extra: 'only in the other store: removed here, or made there',
}

/** What servers agree on goes with the keys, or the first server that starts would decide it anew. */
async function copyAgreement(source: KeyStore, target: KeyStore, name: string): Promise<void> {
  const value = (await source.agree?.(name, null)) ?? null
  if (value === null || !target.agree) return
  const agreed = await target.agree(name, { value, replace: false })
  if (agreed === value) return
  throw new CliError(
    `servers on the other store agree on another ${name.replace(':', ' ')}: see keys.acceptConfiguration`,
    EXIT.unavailable,
  )
}

function describe(counts: CopyCounts, isComplete: boolean): string {
  const { copied, renewed, same, newer, different, extra } = counts
  const done = `Copied ${copied} keys, brought ${renewed} up to date; ${same} were the same.`
  if (isComplete) return `${done} The other store has what this one has.`
  return `${done} The stores differ: ${different} differ, ${newer} are newer there, ${extra} are only there.`
}
