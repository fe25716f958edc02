/**
 * What a check has found.
 *
 * - `ok`: it is right
 * - `problem`: keys do not work, or are not as safe as they look; `doctor` then fails
 * - `warning`: right for some set-ups, or not yet a problem
 * - `unknown`: it could not be checked; the message says why
 */
export interface Finding {
  readonly check: string
  readonly result: 'ok' | 'problem' | 'warning' | 'unknown'
  readonly message: string
}

/** Makes the findings of one check. */
export function findings(check: string) {
  const make =
    (result: Finding['result']) =>
    (message: string): Finding => ({ check, result, message })
  return { ok: make('ok'), problem: make('problem'), warning: make('warning'), unknown: make('unknown') }
}
