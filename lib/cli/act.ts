import type { CommonOptions, Context } from './context.ts'

/** Turns the work of a command into what runs when it is named. `words` are its arguments. */
export type Act = <T extends object>(
  work: (context: Context, options: T & CommonOptions, ...words: string[]) => Promise<number>,
) => (...given: unknown[]) => Promise<void>
